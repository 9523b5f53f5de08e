# importCert.ps1 of Connected Cache, for runbooks that call it: "larder tls import".
# A credential is accepted and not looked at: its password is not needed.
[CmdletBinding(PositionalBinding = $false)]
param(
    [string] $certName,
    [Alias('RunTimeAccountName', 'RunTimeAccount')]
    [string] $mccRunTimeAccount,
    [System.Management.Automation.PSCredential] $mccLocalAccountCredential,
    [Alias('h')]
    [switch] $help,
    [Parameter(ValueFromRemainingArguments = $true)]
    [string[]] $further
)
Set-StrictMode -Version 2
$ErrorActionPreference = 'Stop'

$larder = $env:LARDER
if (-not $larder) {
    foreach ($candidate in @((Join-Path $PSScriptRoot 'larder.exe'), (Join-Path (Split-Path $PSScriptRoot) 'larder.exe'), (Join-Path $env:ProgramFiles 'Larder\larder.exe'))) {
        if (Test-Path -LiteralPath $candidate -PathType Leaf) { $larder = $candidate; break }
    }
}
if (-not $larder) { $larder = (Get-Command larder.exe).Path }

$call = @('tls', 'import')
if ($help) { $call += '--help' }
foreach ($name in 'certName', 'mccRunTimeAccount') {
    if ($PSBoundParameters.ContainsKey($name)) { $call += "-$name=" + $PSBoundParameters[$name] }
}
if ($further) { $call += $further } # of larder's own, such as --dir D:\tls
$legacy = $PSVersionTable.PSVersion -lt [version]'7.3' -or "$(Get-Variable PSNativeCommandArgumentPassing -ValueOnly -ErrorAction SilentlyContinue)" -eq 'Legacy'
if ($legacy -and ($call -like '*"*')) {
    [Console]::Error.WriteLine("argument: found $(@($call -like '*"*')[0]), expected one without quotation marks: this version of PowerShell changes them on their way to a program; next: leave them out, or call this script with PowerShell 7.3 or later")
    exit 2
}
& $larder @call
exit $LASTEXITCODE
