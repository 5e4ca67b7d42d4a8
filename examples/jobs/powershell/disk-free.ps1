$full = 0
foreach ($d in [IO.DriveInfo]::GetDrives()) {
  if ($d.DriveType -ne 'Fixed' -or -not $d.IsReady) { continue }
  $used = [Math]::Floor(100 * (1 - $d.AvailableFreeSpace / $d.TotalSize))
  '{0} {1:n1} GiB of {2:n1} GiB free, {3} % used' -f $d.Name, ($d.AvailableFreeSpace / 1GB), ($d.TotalSize / 1GB), $used
  if ($used -gt 95) { $full = 1 }
}
exit $full
