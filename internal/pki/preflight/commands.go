package preflight

import (
	"net"
	"strings"
)

// isPlain reports whether host can stand in a command of any shell as it is.
func isPlain(host string) bool {
	return host != "" && host[0] != '-' && strings.Trim(host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:") == ""
}

// commands are lines that show, on a client, the certificate that it sees: the
// first and the last print its thumbprint.
func commands(t target) []string {
	if !isPlain(t.host) || !isPlain(t.port) {
		return nil
	}
	// A client that was given an address asks for no name.
	name := "-servername " + t.host
	if net.ParseIP(t.host) != nil {
		name = "-noservername"
	}
	return []string{
		"openssl s_client -connect " + t.String() + " " + name + " </dev/null 2>/dev/null | openssl x509 -noout -subject -issuer -fingerprint -sha256",
		"curl -vk -m 10 -o /dev/null https://" + t.String() + "/",
		// Tls12 is named because Windows PowerShell would offer TLS 1.0 alone.
		"$c=New-Object Net.Sockets.TcpClient('" + t.host + "'," + t.port + ");$s=New-Object Net.Security.SslStream($c.GetStream(),$false,({$true} -as [Net.Security.RemoteCertificateValidationCallback]));" +
			"$s.AuthenticateAsClient('" + t.host + "',$null,'Tls12',$false);$x=New-Object Security.Cryptography.X509Certificates.X509Certificate2($s.RemoteCertificate);$x.Issuer;$x.Thumbprint;$c.Close()",
	}
}

// inShells is commands with the name of each shell, a line each.
func inShells(t target) []string {
	lines := commands(t)
	for i, shell := range []string{"OpenSSL", "curl", "PowerShell"}[:len(lines)] {
		lines[i] = "  " + shell + ": " + lines[i]
	}
	return lines
}
