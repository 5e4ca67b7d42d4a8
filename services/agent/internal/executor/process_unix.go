//go:build unix

package executor

import (
	"errors"
	"os"
	"os/exec"
	"sync/atomic"
	"syscall"

	"kanade/services/agent/internal/domain"
)

func shells() map[string]Shell {
	return map[string]Shell{
		"sh":   {Program: "sh", Ext: ".sh"},
		"pwsh": {Program: "pwsh", Args: []string{"-NoLogo", "-NoProfile", "-NonInteractive", "-File"}, Ext: ".ps1"},
	}
}

func directory(cwd string) string { return cwd }

// runGroup runs a command in a process group of its own; when its context is done the whole group is killed.
func runGroup(cmd *exec.Cmd) (killed bool, err error) {
	var kill atomic.Bool
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error {
		kill.Store(true)
		err := syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		if errors.Is(err, syscall.ESRCH) {
			return os.ErrProcessDone
		}
		return err
	}
	err = cmd.Run()
	return kill.Load(), err
}

func exitOf(state *os.ProcessState) domain.Exit {
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return domain.Exit{Signal: ws.Signal().String()}
	}
	return domain.Exit{Code: state.ExitCode()}
}
