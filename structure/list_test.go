package structure

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// module is what `go list -m -json` says of a module, as far as it matters here.
type module struct {
	Path, Dir, GoVersion string
}

// pkg is what `go list -json` says of a package, as far as it matters here. Deps are those of the package without its
// tests, all the way down.
type pkg struct {
	ImportPath, Name, Dir, Doc               string
	GoFiles, TestGoFiles, XTestGoFiles       []string
	Imports, TestImports, XTestImports, Deps []string
	Module                                   module
}

// tested are the packages that the package's own tests import.
func (p pkg) tested() []string { return slices.Concat(p.TestImports, p.XTestImports) }

// workspace is the directory of go.work.
func workspace(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// goCommand runs the go command in the workspace, for another system if goos is not empty.
func goCommand(t *testing.T, goos string, args ...string) []byte {
	t.Helper()
	dir := workspace(t)
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK="+filepath.Join(dir, "go.work"), "GOFLAGS=-buildvcs=false")
	if goos != "" {
		cmd.Env = append(cmd.Env, "GOOS="+goos, "CGO_ENABLED=0")
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return out
}

// decode reads JSON values that follow each other.
func decode[T any](t *testing.T, data []byte) []T {
	t.Helper()
	var all []T
	for d := json.NewDecoder(bytes.NewReader(data)); ; {
		var v T
		err := d.Decode(&v)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(fmt.Errorf("read what the go command says: %w", err))
		}
		all = append(all, v)
	}
}

// modules lists the modules of the workspace.
func modules(t *testing.T) []module {
	t.Helper()
	all := decode[module](t, goCommand(t, "", "list", "-m", "-json"))
	if len(all) < 10 {
		t.Fatalf("found %d modules only", len(all))
	}
	return all
}

// packages lists the packages of the workspace by import path.
func packages(t *testing.T) map[string]pkg { return packagesOn(t, "") }

// packagesOn lists what belongs to the workspace on another system.
func packagesOn(t *testing.T, goos string) map[string]pkg {
	t.Helper()
	all := map[string]pkg{}
	fields := "-json=ImportPath,Name,Dir,Doc,GoFiles,TestGoFiles,XTestGoFiles,Imports,TestImports,XTestImports,Deps,Module"
	for _, p := range decode[pkg](t, goCommand(t, goos, "list", "-e", fields, "work")) {
		all[p.ImportPath] = p
	}
	for _, known := range []string{"kanade/libs/events", "kanade/services/api", "kanade/cmd/kanade"} {
		if _, ok := all[known]; !ok {
			t.Fatalf("package %s is not in the list", known)
		}
	}
	return all
}

func local(path string) bool { return strings.HasPrefix(path, "kanade/") }

// within reports whether a package is dir or below it.
func within(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }
