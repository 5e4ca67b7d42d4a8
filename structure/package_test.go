package structure

import (
	"path"
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
