# Registers a task that pushes a file every night. Run it once, as administrator.
$folder = 'C:\Backup'
$push = "$folder\filebucket-push.pyz --url https://backup.example.org:1443" +
    " --token-file $folder\token --receipt $folder\receipt.txt" +
    " --name db-{date}.bak C:\Data\db.bak"

# Only the system and administrators may read the token.
icacls "$folder\token" /inheritance:r /grant '*S-1-5-18:R' '*S-1-5-32-544:F'

Register-ScheduledTask -TaskName 'Push db' -User SYSTEM `
    -Action (New-ScheduledTaskAction -Execute py.exe -Argument $push) `
    -Trigger (New-ScheduledTaskTrigger -Daily -At 02:30) `
    -Settings (New-ScheduledTaskSettingsSet -StartWhenAvailable)
