package cli

import (
	"io"
	"os"

	"golang.org/x/term"
)

// terminalSize tells how large the terminal is that w writes to; nil when it writes to none, or to one that can't move
// its cursor.
func terminalSize(w io.Writer) func() (width, height int) {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) || os.Getenv("TERM") == "dumb" || !commanded(f) {
		return nil
	}
	return func() (width, height int) {
		width, height, err := term.GetSize(int(f.Fd()))
		if err != nil || width < 1 || height < 1 {
			return 80, 24
		}
		return width, height
	}
}
