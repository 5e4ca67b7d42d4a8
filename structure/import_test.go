package structure

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

// Imports run one way: events ← bus, catalog, readmodel ← a service's domain ← its adapters ← the service ← programs.
func TestImportsRunOneWay(t *testing.T) {
	all := packages(t)
	for _, path := range slices.Sorted(maps.Keys(all)) {
		for _, imported := range all[path].Imports {
			if local(imported) && !slices.ContainsFunc(allowed(path), func(dir string) bool { return within(imported, dir) }) {
				t.Errorf("%s imports %s", path, imported)
			}
		}
	}
}

// allowed are the directories below which a package may import from.
func allowed(path string) []string {
	events, process := "kanade/libs/events", "kanade/libs/process"
	libs := []string{events, "kanade/libs/bus", "kanade/libs/catalog", "kanade/libs/readmodel", process}
	words := strings.Split(path, "/")
	switch {
	case words[1] == "libs" && path != process && !within(path, process):
		return []string{events, strings.Join(words[:3], "/")}
	case words[1] == "services":
		service := strings.Join(words[:3], "/")
		domain := service + "/internal/domain"
		switch {
		case within(path, domain): // decisions are pure: no broker, no database
			return []string{events, "kanade/libs/catalog", domain}
		case within(path, service+"/internal"):
			return append(libs, service+"/internal")
		default: // the service itself, its programs and its test kits
			return append(libs, service)
		}
	case words[1] == "cmd":
		return append(libs, "kanade/services", "kanade/examples", strings.Join(words[:3], "/"))
	case words[1] == "deploy":
		return append(libs, "kanade/services")
	default: // process and examples know nobody
		return nil
	}
}

// Libraries above events stand side by side, in their tests too.
func TestLibrariesAreStrangers(t *testing.T) {
	for path, p := range packages(t) {
		if !within(path, "kanade/libs") {
			continue
		}
		own := strings.Join(strings.Split(path, "/")[:3], "/")
		for _, imported := range p.tested() {
			if local(imported) && !within(imported, own) && !within(imported, "kanade/libs/events") {
				t.Errorf("a test of %s imports %s", path, imported)
			}
		}
	}
}

// Services meet in the log alone: no service imports another, in no test either.
func TestServicesAreStrangers(t *testing.T) {
	for path, p := range packages(t) {
		if !within(path, "kanade/services") {
			continue
		}
		own := strings.Join(strings.Split(path, "/")[:3], "/")
		for _, imported := range slices.Concat(p.Imports, p.tested()) {
			if within(imported, "kanade/services") && !within(imported, own) {
				t.Errorf("%s imports %s", path, imported)
			}
			if within(imported, "kanade/cmd") {
				t.Errorf("%s imports %s", path, imported)
			}
		}
	}
}

// The language of the log knows no transport and no database.
func TestEventsKnowNoTransport(t *testing.T) {
	for path, p := range packages(t) {
		if !within(path, "kanade/libs/events") && !within(path, "kanade/libs/catalog") {
			continue
		}
		for _, dep := range p.Deps {
			if strings.HasPrefix(dep, "github.com/nats-io/") || strings.HasPrefix(dep, "github.com/ThreeDotsLabs/") || strings.HasPrefix(dep, "modernc.org/") {
				t.Errorf("%s depends on %s", path, dep)
			}
		}
	}
}
