package deploy

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// programs are the services that have a program of their own.
var programs = []string{"api", "projector", "scheduler", "agent"}

// built is where the programs are, built once for all tests.
var built struct {
	sync.Once
	dir string
	err error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if built.dir != "" {
		_ = os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

// program gives the path of a service's program.
func program(t *testing.T, service string) string {
	t.Helper()
	built.Do(func() { built.dir, built.err = build(context.Background()) })
	require.NoError(t, built.err)
	return executable(built.dir, service)
}

func build(ctx context.Context) (string, error) {
	dir, err := os.MkdirTemp("", "kanade-deploy")
	if err != nil {
		return "", fmt.Errorf("build programs: %w", err)
	}
	for _, service := range programs {
		cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-o", executable(dir, service), "./cmd/"+service)
		cmd.Dir = filepath.Join("..", "services", service)
		if out, err := cmd.CombinedOutput(); err != nil {
			return dir, fmt.Errorf("build %s: %w\n%s", service, err, out)
		}
	}
	return dir, nil
}

func executable(dir, service string) string {
	name := filepath.Join(dir, "kanade-"+service)
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	return name
}

// understands lists the environment variables that a program says it reads.
func understands(t *testing.T, service string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), program(t, service), "--help").Output()
	require.NoError(t, err)
	return string(out)
}
