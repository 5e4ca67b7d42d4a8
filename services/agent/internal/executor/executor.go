// Package executor runs scripts as processes of this system.
//
// A script is written to a file of its own and given to its shell (sh on Unix; pwsh, powershell and cmd where they are
// found), because an argument may be 128 KiB at most on Linux and 32 KiB on Windows, and a script 1 MiB. It runs as the
// leader of a process group (on Windows: in a job object), so that a kill ends its descendants too. What a script
// leaves running on purpose when it ends by itself is left alone, and does not hold the result even if it keeps the
// output open.
package executor

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"kanade/services/agent/internal/domain"
)

// outputGrace is how long output is still read after the script has ended or was killed, if a descendant keeps it open.
const outputGrace = 500 * time.Millisecond

// Shell is how one shell is called: the program, the arguments before the script's file, and the file's extension.
type Shell struct {
	Program string
	Args    []string
	Ext     string
	// Prefix is written before the script.
	Prefix string
}

// Processes is the domain.Executor of this system. It is safe for concurrent use.
type Processes struct {
	dir    string
	shells map[string]Shell
}

var _ domain.Executor = (*Processes)(nil)

// New makes an executor whose script files lie in dir, which it makes. Files that a predecessor left there are removed.
func New(dir string) (*Processes, error) {
	if err := os.RemoveAll(dir); err != nil {
		return nil, fmt.Errorf("empty script directory: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make script directory: %w", err)
	}
	return &Processes{dir: dir, shells: shells()}, nil
}

// Supports reports whether the shell's program is found. It is looked up each time: one that is installed later is used
// from then on.
func (p *Processes) Supports(shell string) bool {
	s, ok := p.shells[shell]
	if !ok {
		return false
	}
	_, err := exec.LookPath(s.Program)
	return err == nil
}

// Run implements domain.Executor.
func (p *Processes) Run(
	ctx context.Context, name string, s domain.Script, env []string, stdout, stderr io.Writer,
) (domain.Exit, error) {
	shell, ok := p.shells[s.Shell]
	if !ok {
		return domain.Exit{}, fmt.Errorf("%w: shell %q is not on this system", domain.ErrNotStarted, s.Shell)
	}
	cwd := directory(s.Cwd)
	if cwd != "" {
		// The system's own error would name the shell's program.
		if info, err := os.Stat(cwd); err != nil || !info.IsDir() {
			return domain.Exit{}, fmt.Errorf("%w: there is no working directory %s", domain.ErrNotStarted, cwd)
		}
	}
	file := filepath.Join(p.dir, name+shell.Ext)
	if err := os.WriteFile(file, []byte(shell.Prefix+s.Body), 0o600); err != nil {
		return domain.Exit{}, fmt.Errorf("%w: write it: %w", domain.ErrNotStarted, err)
	}
	defer os.Remove(file)

	args := append(append(append([]string{}, shell.Args...), file), s.Args...)
	cmd := exec.CommandContext(ctx, shell.Program, args...)
	cmd.Dir, cmd.Env, cmd.WaitDelay = cwd, environment(os.Environ(), s.Env, env), outputGrace
	cmd.Stdout, cmd.Stderr = stdout, stderr
	if s.Stdin != "" {
		cmd.Stdin = strings.NewReader(s.Stdin)
	}
	killed, err := runGroup(cmd)
	switch {
	case cmd.Process == nil:
		return domain.Exit{}, fmt.Errorf("%w: run %s: %w", domain.ErrNotStarted, s.Shell, err)
	case cmd.ProcessState == nil:
		return domain.Exit{}, fmt.Errorf("wait for %s: %w", s.Shell, err)
	}
	exit := exitOf(cmd.ProcessState)
	if killed && exit.Signal == "" && exit.Code != 0 {
		exit = domain.Exit{Signal: "kill"}
	}
	return exit, nil
}

// environment is the agent's own without its secrets, then the command's, then what names the run.
func environment(own []string, script map[string]string, run []string) []string {
	env := make([]string, 0, len(own)+len(script)+len(run))
	for _, kv := range own {
		if !strings.HasPrefix(strings.ToUpper(kv), "KANADE_") {
			env = append(env, kv)
		}
	}
	for k, v := range script {
		env = append(env, k+"="+v)
	}
	return append(env, run...)
}
