package structure

import (
	"encoding/json"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// toolsDir is the one module outside of the workspace: what tools need must not choose versions for programs.
const toolsDir = "tools"

// goMod is what `go mod edit -json` says.
type goMod struct {
	Module  struct{ Path string }
	Go      string
	Require []struct{ Path, Version string }
	Replace []struct {
		Old, New struct{ Path, Version string }
	}
}

func readGoMod(t *testing.T, dir string) goMod {
	t.Helper()
	var m goMod
	if err := json.Unmarshal(goCommand(t, "", "mod", "edit", "-json", filepath.Join(dir, "go.mod")), &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// A container builds one module without the workspace. For that each go.mod names every local module that it needs,
// directly or not, its tests included: required as v0.0.0 and replaced by a relative path.
func TestModulesStandByThemselves(t *testing.T) {
	all, dirs := packages(t), map[string]string{}
	mods := modules(t)
	for _, m := range mods {
		dirs[m.Path] = m.Dir
	}
	for _, m := range mods {
		file := readGoMod(t, m.Dir)
		required, replaced := map[string]string{}, map[string]string{}
		for _, r := range file.Require {
			required[r.Path] = r.Version
		}
		for _, r := range file.Replace {
			if !local(r.Old.Path) {
				t.Errorf("%s replaces %s: versions are chosen by require", m.Path, r.Old.Path)
			}
			replaced[r.Old.Path] = r.New.Path
		}
		for _, need := range needs(all, m.Path) {
			if required[need] != "v0.0.0" {
				t.Errorf("%s requires %s as %q, not v0.0.0", m.Path, need, required[need])
			}
			if by := replaced[need]; !strings.HasPrefix(by, "../") || filepath.Join(m.Dir, by) != dirs[need] {
				t.Errorf("%s replaces %s by %q, not by a relative path to %s", m.Path, need, by, dirs[need])
			}
		}
	}
}

// needs are the other local modules that a module's packages and their tests import, all the way down.
func needs(all map[string]pkg, modulePath string) []string {
	seen, found := map[string]bool{}, map[string]bool{}
	var visit func(imports []string)
	visit = func(imports []string) {
		for _, i := range imports {
			p, ok := all[i]
			if !ok || seen[i] {
				continue
			}
			seen[i] = true
			if p.Module.Path != modulePath {
				found[p.Module.Path] = true
			}
			visit(p.Imports)
		}
	}
	for _, p := range all {
		if p.Module.Path == modulePath {
			visit(slices.Concat(p.Imports, p.tested()))
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// A module's path says where it is, and all are of one Go version.
func TestModulePathsFollowTheTree(t *testing.T) {
	top := workspace(t)
	for _, m := range modules(t) {
		rel, err := filepath.Rel(top, m.Dir)
		if err != nil {
			t.Fatal(err)
		}
		if want := path.Join("kanade", filepath.ToSlash(rel)); m.Path != want {
			t.Errorf("the module in %s is %s, not %s", rel, m.Path, want)
		}
		if first := readGoMod(t, filepath.Join(top, "libs", "events")).Go; m.GoVersion != first {
			t.Errorf("%s asks for Go %s, kanade/libs/events for %s", m.Path, m.GoVersion, first)
		}
	}
}

// Whoever makes a module puts it into go.work; otherwise no command of the workspace sees it.
func TestEveryModuleIsInTheWorkspace(t *testing.T) {
	known := map[string]bool{}
	for _, m := range modules(t) {
		known[m.Dir] = true
	}
	top := workspace(t)
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != top && (strings.HasPrefix(d.Name(), ".") || d.Name() == "node_modules" || d.Name() == "testdata"):
			return filepath.SkipDir
		case d.Name() == "go.mod" && !known[filepath.Dir(path)] && filepath.Dir(path) != filepath.Join(top, toolsDir):
			t.Errorf("%s is not in go.work", path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
