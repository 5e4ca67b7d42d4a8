df -Pk / | awk '
  NR > 1 {
    used = $5; sub("%", "", used)
    printf "%s: %.1f GiB of %.1f GiB free, %s %% used\n", $6, $4 / 1048576, $2 / 1048576, used
    if (used + 0 > 95) full = 1
  }
  END { exit full }'
