//go:build windows

package executor

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync/atomic"

	"golang.org/x/sys/windows"

	"kanade/services/agent/internal/domain"
)

// utf8Mark begins a file that PowerShell 5 reads as UTF-8 and not in the system's code page.
const utf8Mark = "\ufeff"

func shells() map[string]Shell {
	file := []string{"-NoLogo", "-NoProfile", "-NonInteractive", "-ExecutionPolicy", "Bypass", "-File"}
	return map[string]Shell{
		"powershell": {Program: "powershell.exe", Args: file, Ext: ".ps1", Prefix: utf8Mark},
		"pwsh":       {Program: "pwsh.exe", Args: file, Ext: ".ps1"},
		"cmd":        {Program: "cmd.exe", Args: []string{"/d", "/q", "/c"}, Ext: ".cmd"},
	}
}

// directory expands a leading ~ and %NAME% as the wire says; a name that is not set stays as it is.
func directory(cwd string) string {
	if home, err := os.UserHomeDir(); err == nil && (cwd == "~" || strings.HasPrefix(cwd, `~\`) || strings.HasPrefix(cwd, "~/")) {
		cwd = home + cwd[1:]
	}
	return regexp.MustCompile(`%[^%]+%`).ReplaceAllStringFunc(cwd, func(s string) string {
		if v, ok := os.LookupEnv(strings.Trim(s, "%")); ok {
			return v
		}
		return s
	})
}

// runGroup runs a command in a job object; when its context is done the whole job is ended. What the script leaves
// running when it ends by itself stays: the job does not end with its handle. A child that the script starts before it is
// in the job, within its first moments, escapes.
func runGroup(cmd *exec.Cmd) (killed bool, err error) {
	job, err := windows.CreateJobObject(nil, nil)
	if err != nil {
		return false, fmt.Errorf("create job object: %w", err)
	}
	defer windows.CloseHandle(job)
	var kill atomic.Bool
	cmd.Cancel = func() error {
		kill.Store(true)
		if err := windows.TerminateJobObject(job, 1); err != nil {
			return cmd.Process.Kill()
		}
		return nil
	}
	if err := cmd.Start(); err != nil {
		return false, err
	}
	if err := assign(job, cmd.Process.Pid); err != nil {
		// It runs, but a kill would reach only the shell: then it must not run.
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return true, fmt.Errorf("put script into job object: %w", err)
	}
	err = cmd.Wait()
	return kill.Load(), err
}

func assign(job windows.Handle, pid int) error {
	process, err := windows.OpenProcess(windows.PROCESS_SET_QUOTA|windows.PROCESS_TERMINATE, false, uint32(pid))
	if err != nil {
		return err
	}
	defer windows.CloseHandle(process)
	return windows.AssignProcessToJobObject(job, process)
}

func exitOf(state *os.ProcessState) domain.Exit { return domain.Exit{Code: state.ExitCode()} }
