package structure

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A package is named for what it is about; these are about nothing.
var meaningless = []string{"base", "common", "helper", "helpers", "lib", "misc", "shared", "util", "utils"}

func TestPackagesAreAboutSomething(t *testing.T) {
	for importPath, p := range packages(t) {
		if slices.Contains(meaningless, strings.TrimSuffix(p.Name, "_test")) || slices.Contains(meaningless, path.Base(importPath)) {
			t.Errorf("package %s (%s) is called after nothing", p.Name, importPath)
		}
	}
}

// A package's doc comment is its contract.
func TestPackagesSayWhatTheyAre(t *testing.T) {
	for importPath, p := range packages(t) {
		begins := "Package " + p.Name + " "
		if p.Name == "main" {
			begins = "Command "
		}
		if len(p.GoFiles) > 0 && !strings.HasPrefix(p.Doc, begins) {
			t.Errorf("the doc comment of %s does not begin with %q", importPath, begins)
		}
	}
}

// Real time is never slept away: a test that sleeps does so in simulated time, so its package's tests know synctest. A
// benchmark has no other way to wait for what it measures.
func TestTestsSleepInSimulatedTimeOnly(t *testing.T) {
	for _, p := range packages(t) {
		if slices.Contains(p.tested(), "testing/synctest") {
			continue
		}
		for _, name := range slices.Concat(p.TestGoFiles, p.XTestGoFiles) {
			file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range file.Decls {
				f, ok := d.(*ast.FuncDecl)
				if ok && !strings.HasPrefix(f.Name.Name, "Benchmark") && sleeps(f) {
					t.Errorf("%s sleeps in %s of %s, and not in simulated time", p.ImportPath, f.Name.Name, name)
				}
			}
		}
	}
}

func sleeps(f *ast.FuncDecl) (found bool) {
	ast.Inspect(f, func(n ast.Node) bool {
		s, ok := n.(*ast.SelectorExpr)
		if ok && s.Sel.Name == "Sleep" {
			x, ok := s.X.(*ast.Ident)
			found = found || ok && x.Name == "time"
		}
		return !found
	})
	return found
}
