# disableTls.ps1 of Connected Cache, for runbooks that call it: "larder tls disable".
# Accounts and credentials are accepted and not looked at: neither is needed.
[CmdletBinding(PositionalBinding = $false)]
param(
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

$call = @('tls', 'disable')
if ($help) { $call += '--help' }
if ($further) { $call += $further } # of larder's own, such as --dir D:\tls
& $larder @call
exit $LASTEXITCODE
