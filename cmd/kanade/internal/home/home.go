// Package home is kanade's data directory on one machine: where it is, who uses it, and the two tokens in it.
//
//	api-token     what clients of the API present; the command line on the same machine finds it here by itself
//	broker-token  what connections to the embedded broker present; nobody else on the machine can command agents
//	lock, pid     held, and named, by the process that uses the directory
//	broker/       streams of the embedded broker
//	readmodel/    SQLite files, a slot for each projector
//	agent/        ledger and outbox of the agent
//	kanade.log    what the services say
//
// Directory and files are for their owner alone (0700, 0600). One process at a time opens a home; anybody with the
// right to may read the API's token.
package home

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/gofrs/flock"

	"kanade/services/api"
)

// ErrInUse says that another process has the directory open.
var ErrInUse = errors.New("in use by another process")

// Home is an open data directory. Its values are read-only after Open.
type Home struct {
	// Dir is absolute.
	Dir string
	// APIToken and BrokerToken are made at the first Open and stay.
	APIToken, BrokerToken string

	lock *flock.Flock
}

// Default is `kanade` in the user's data directory of the system: $XDG_DATA_HOME or ~/.local/share on Linux and its
// like, ~/Library/Application Support on macOS, %LocalAppData% on Windows.
func Default() (string, error) {
	dir, err := os.UserHomeDir()
	switch {
	case runtime.GOOS == "windows":
		if local := os.Getenv("LocalAppData"); local != "" {
			return filepath.Join(local, "kanade"), nil
		}
		return "", errors.New("find data directory: %LocalAppData% is not set; name one")
	case runtime.GOOS == "darwin" && err == nil:
		return filepath.Join(dir, "Library", "Application Support", "kanade"), nil
	case filepath.IsAbs(os.Getenv("XDG_DATA_HOME")):
		return filepath.Join(os.Getenv("XDG_DATA_HOME"), "kanade"), nil
	case err != nil:
		return "", fmt.Errorf("find data directory: %w; name one", err)
	}
	return filepath.Join(dir, ".local", "share", "kanade"), nil
}

// Open makes the directory if it is missing, takes it for this process, and makes what tokens are missing. The error is
// ErrInUse, with the other process's id where it is known, while another process has it open.
func Open(dir string) (*Home, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make data directory: %w", err)
	}
	h := &Home{Dir: dir, lock: flock.New(filepath.Join(dir, "lock"))}
	ok, err := h.lock.TryLock()
	if err != nil {
		return nil, fmt.Errorf("lock data directory %s: %w", dir, err)
	}
	if !ok {
		return nil, fmt.Errorf("data directory %s is %w%s; stop it, or name another directory with --data", dir, ErrInUse, user(dir))
	}
	if err := h.fill(); err != nil {
		return nil, errors.Join(fmt.Errorf("data directory %s: %w", dir, err), h.Close())
	}
	return h, nil
}

func (h *Home) fill() (err error) {
	if err = os.WriteFile(h.Path("pid"), []byte(strconv.Itoa(os.Getpid())+"\n"), 0o600); err != nil {
		return fmt.Errorf("note the process: %w", err)
	}
	if h.APIToken, err = api.LoadOrCreateToken(h.Path("api-token")); err != nil {
		return err
	}
	h.BrokerToken, err = api.LoadOrCreateToken(h.Path("broker-token"))
	return err
}

// Path of a file or directory of the home.
func (h *Home) Path(name string) string { return filepath.Join(h.Dir, name) }

// Close gives the directory up for other processes.
func (h *Home) Close() error {
	if err := h.lock.Unlock(); err != nil {
		return fmt.Errorf("unlock data directory %s: %w", h.Dir, err)
	}
	return nil
}

// APIToken reads the token of the API that was started in dir, and says which file it is in. It is empty, without an
// error, where none was started.
func APIToken(dir string) (token, path string, err error) { return readToken(dir, "api-token") }

// BrokerToken reads the token of the broker that was started in dir, as APIToken does.
func BrokerToken(dir string) (token, path string, err error) { return readToken(dir, "broker-token") }

func readToken(dir, name string) (token, path string, err error) {
	path = filepath.Join(dir, name)
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", path, fmt.Errorf("read %s: %w", name, err)
	}
	return strings.TrimSpace(string(text)), path, nil
}

// user names the process that has the directory, as far as is known.
func user(dir string) string {
	pid, err := os.ReadFile(filepath.Join(dir, "pid"))
	if err != nil {
		return ""
	}
	return fmt.Sprintf(" (pid %s)", strings.TrimSpace(string(pid)))
}
