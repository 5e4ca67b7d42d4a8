package cli

import (
	"os"

	"golang.org/x/sys/windows"
)

// commanded makes a console read commands to its cursor, which it does not do unless asked, and reports whether it does.
func commanded(f *os.File) bool {
	console := windows.Handle(f.Fd())
	var mode uint32
	if windows.GetConsoleMode(console, &mode) != nil {
		return false
	}
	return windows.SetConsoleMode(console, mode|windows.ENABLE_VIRTUAL_TERMINAL_PROCESSING) == nil
}
