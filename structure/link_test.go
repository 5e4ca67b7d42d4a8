package structure

import (
	"slices"
	"strings"
	"testing"
)

const (
	brokerPackage = "github.com/nats-io/nats-server/v2/server"
	sqlitePackage = "modernc.org/sqlite"
	grpcPackage   = "google.golang.org/grpc"
)

// What each program may link of the heavy things. A program that is not named may link none, and nothing may link gRPC:
// a first build has a minute.
var mayLink = map[string][]string{
	"kanade/cmd/kanade":                       {brokerPackage, sqlitePackage},
	"kanade/services/api/cmd/api":             {sqlitePackage},
	"kanade/services/projector/cmd/projector": {sqlitePackage},
}

// The agent stays light, and only `kanade` brings a broker, on every system.
func TestProgramsLinkNoMoreThanTheyNeed(t *testing.T) {
	for _, goos := range []string{"linux", "windows", "darwin"} {
		programs := 0
		for path, p := range packagesOn(t, goos) {
			if p.Name != "main" || strings.Contains(path, "/internal/") {
				continue
			}
			programs++
			for _, heavy := range []string{brokerPackage, sqlitePackage, grpcPackage} {
				if links, may := slices.Contains(p.Deps, heavy), slices.Contains(mayLink[path], heavy); links && !may {
					t.Errorf("%s: %s links %s", goos, path, heavy)
				} else if may && !links {
					t.Errorf("%s: %s does not link %s any more: take it out of the list", goos, path, heavy)
				}
			}
		}
		if programs < 5 {
			t.Fatalf("%s: found %d programs only", goos, programs)
		}
	}
}

// The broker's own package is imported in two places: where it is embedded, and in the test kit. What is not a test may
// embed it only for `kanade`; deploy's tests play the broker's container with it.
func TestBrokerIsEmbeddedInOnePlace(t *testing.T) {
	embed, kit := "kanade/libs/bus/broker", "kanade/libs/bus/bustest"
	for path, p := range packages(t) {
		for _, imported := range slices.Concat(p.Imports, p.tested()) {
			if strings.HasPrefix(imported, "github.com/nats-io/nats-server/") && path != embed && path != kit {
				t.Errorf("%s imports %s", path, imported)
			}
		}
		for _, imported := range p.Imports {
			if (imported == embed || imported == kit) && path != kit && !within(path, "kanade/cmd/kanade") {
				t.Errorf("%s imports %s outside of its tests", path, imported)
			}
		}
	}
}
