//go:build !windows

package cli

import "os"

// commanded reports whether a terminal reads commands to its cursor: those of today all do.
func commanded(*os.File) bool { return true }
