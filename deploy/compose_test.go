package deploy

import (
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/stretchr/testify/require"

	"kanade/libs/bus"
	"kanade/libs/bus/broker"
	"kanade/libs/events"
)

// compose loads docker-compose.yml as Docker would, every profile included, without anybody's environment.
func compose(t *testing.T) *types.Project {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{filepath.Join("..", "docker-compose.yml")},
		cli.WithProfiles([]string{"*"}), cli.WithResolvedPaths(true), cli.WithDiscardEnvFile)
	require.NoError(t, err)
	project, err := options.LoadProject(t.Context())
	require.NoError(t, err)
	return project
}

func TestComposeHasEveryService(t *testing.T) {
	project := compose(t)
	require.ElementsMatch(t, append([]string{"broker"}, programs...), project.ServiceNames())
	for _, s := range project.Services {
		require.Equal(t, s.Name == "agent", len(s.Profiles) > 0, "%s: the agent alone is in a profile", s.Name)
		require.Empty(t, s.ContainerName, "%s: a name of its own would forbid --scale", s.Name)
		require.NotEqual(t, "host", s.NetworkMode, s.Name)
		for _, p := range s.Ports {
			require.Equal(t, "127.0.0.1", p.HostIP, "%s publishes a port to other machines", s.Name)
		}
	}
}

// An unknown variable would be ignored without a word.
func TestComposeSetsOnlyWhatProgramsRead(t *testing.T) {
	project := compose(t)
	standard := []string{"TZ", "GOMEMLIMIT", "GOMAXPROCS"}
	for _, service := range programs {
		help := understands(t, service)
		for name, value := range project.Services[service].Environment {
			require.NotNil(t, value, "%s: %s has no value", service, name)
			if !slices.Contains(standard, name) && !strings.HasPrefix(name, "OTEL_") {
				require.Regexp(t, `\$`+name+`\b`, help, "%s does not read %s", service, name)
			}
		}
	}
}

// Services that are given different limits would change the streams back and forth.
func TestComposeGivesServicesTheSameLimits(t *testing.T) {
	project := compose(t)
	limits := reflect.TypeFor[events.Limits]()
	given := 0
	for i := range limits.NumField() {
		name := limits.Field(i).Tag.Get("env")
		require.NotEmpty(t, name)
		first := project.Services["api"].Environment[name]
		if first != nil {
			given++
		}
		for _, service := range []string{"projector", "scheduler"} {
			require.Equal(t, first, project.Services[service].Environment[name], "%s: %s", service, name)
		}
	}
	require.Positive(t, given)
}

// The broker keeps room for every stream at its limit, or does not make it.
func TestBrokerHasRoomForTheStreams(t *testing.T) {
	t.Setenv("KANADE_NATS_TOKEN", "x")
	b, err := broker.Start(broker.Config{
		File: "nats.conf", Listen: "127.0.0.1:0", StoreDir: t.TempDir(), Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	t.Cleanup(b.Shutdown)
	c, err := bus.Connect(t.Context(), bus.Config{URL: b.URL(), Token: b.Token(), Name: "test", Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	require.NoError(t, c.Ensure(t.Context(), events.DefaultLimits()))
	require.EqualValues(t, events.MaxPayload, c.Conn().MaxPayload())
}

func TestComposeChecksHealth(t *testing.T) {
	project, dockerfile := compose(t), read(t, "Dockerfile")
	for _, s := range project.Services {
		require.NotNil(t, s.HealthCheck, s.Name)
		require.False(t, s.HealthCheck.Disable, s.Name)
		if s.Name == "broker" {
			continue
		}
		require.Equal(t, types.DependsOnConfig{"broker": {Condition: "service_healthy", Required: true}}, s.DependsOn, s.Name)
		test := s.HealthCheck.Test
		require.Len(t, test, 3, s.Name)
		require.Equal(t, "healthcheck", test[2], s.Name)
		require.Contains(t, dockerfile, `ENTRYPOINT ["`+test[1]+`"]`, "%s: the check runs what the image has", s.Name)
		require.Contains(t, understands(t, s.Name), "healthcheck", s.Name)
	}
}

func TestComposeBuildsEveryTargetOfTheDockerfile(t *testing.T) {
	project, dockerfile := compose(t), read(t, "Dockerfile")
	for _, service := range programs {
		b := project.Services[service].Build
		require.NotNil(t, b, service)
		require.Equal(t, service, b.Target)
		require.Equal(t, "deploy/Dockerfile", b.Dockerfile)
		require.Contains(t, dockerfile, `go build -C services/`+service+` -ldflags="-s -w" -o /out/kanade-`+service+` ./cmd/`+service+"\n")
		base := regexp.MustCompile(`(?m)^FROM (\S+) AS ` + service + `$`).FindStringSubmatch(dockerfile)
		require.NotNil(t, base, "the Dockerfile has no target %s", service)
		require.Equal(t, service != "agent", strings.HasPrefix(base[1], "gcr.io/distroless/static"), "%s is made from %s", service, base[1])
		require.Equal(t, "65532:65532", project.Services[service].User, service)
		require.True(t, project.Services[service].ReadOnly, service)
	}
	require.Equal(t, len(programs), strings.Count(dockerfile, "\nUSER 65532:65532\n"))
}

// Readers of SQLite take part in its write-ahead log: the same files, the same user.
func TestComposeSharesTheReadModel(t *testing.T) {
	project := compose(t)
	api, projector := project.Services["api"], project.Services["projector"]
	require.Equal(t, api.User, projector.User)
	require.Equal(t, api.Environment["KANADE_READ_MODEL_DIR"], projector.Environment["KANADE_READ_MODEL_DIR"])
	for _, s := range []types.ServiceConfig{api, projector} {
		require.Equal(t, "read-model", volumeAt(s, *s.Environment["KANADE_READ_MODEL_DIR"]), s.Name)
	}
	require.Equal(t, "agent", volumeAt(project.Services["agent"], *project.Services["agent"].Environment["KANADE_AGENT_DATA"]))
	for name := range project.Volumes {
		require.Empty(t, project.Volumes[name].Driver, "SQLite's shared memory needs one machine")
	}
}

// volumeAt is the named volume that a service has at a path.
func volumeAt(s types.ServiceConfig, target string) string {
	for _, v := range s.Volumes {
		if v.Type == types.VolumeTypeVolume && v.Target == target && !v.ReadOnly {
			return v.Source
		}
	}
	return ""
}

func TestComposeScales(t *testing.T) {
	ports := compose(t).Services["api"].Ports
	require.Len(t, ports, 1, "one entry with a range: %v", ports)
	require.Equal(t, "8080-8089", ports[0].Published)
	require.EqualValues(t, 8080, ports[0].Target)
	for _, service := range []string{"projector", "scheduler"} {
		require.Empty(t, compose(t).Services[service].Ports, "a port of the host would forbid --scale %s", service)
	}
}

func TestComposeGivesSecretsAsFiles(t *testing.T) {
	project := compose(t)
	ignored := strings.Split(read(t, "../.gitignore"), "\n")
	require.Contains(t, ignored, "/deploy/secrets/")
	for _, s := range project.Services {
		for name, value := range s.Environment {
			file, isFile := strings.CutPrefix(*value, "/run/secrets/")
			require.Equal(t, strings.HasSuffix(name, "_TOKEN_FILE"), isFile, "%s: %s", s.Name, name)
			if isFile {
				require.True(t, slices.ContainsFunc(s.Secrets, func(x types.ServiceSecretConfig) bool { return x.Source == file }), "%s has no secret %s", s.Name, file)
			}
			require.False(t, strings.HasSuffix(name, "TOKEN"), "%s: %s would be seen by docker inspect", s.Name, name)
		}
	}
	for name, secret := range project.Secrets {
		require.Equal(t, filepath.Join("deploy", "secrets", name), within(t, secret.File))
	}
}

// The broker's container is the version that the tests embed, and reads the file that they read.
func TestComposeRunsTheBrokerOfTheTests(t *testing.T) {
	broker := compose(t).Services["broker"]
	version := regexp.MustCompile(`nats-server/v2 v(\S+)`).FindStringSubmatch(read(t, "../libs/bus/go.mod"))
	require.NotNil(t, version)
	require.Equal(t, "nats:"+version[1]+"-alpine", broker.Image)
	var config string
	for _, v := range broker.Volumes {
		if v.Type == types.VolumeTypeBind {
			require.Equal(t, filepath.Join("deploy", "nats.conf"), within(t, v.Source))
			require.True(t, v.ReadOnly)
			config = v.Target
		}
	}
	require.NotEmpty(t, config)
	require.Contains(t, strings.Join(broker.Entrypoint, " "), "--config "+config+" ")
	store := regexp.MustCompile(`store_dir: "([^"]+)"`).FindStringSubmatch(read(t, "nats.conf"))
	require.NotNil(t, store)
	require.Equal(t, "broker", volumeAt(broker, store[1]))
	require.EqualValues(t, 4222, broker.Ports[0].Target)
	for _, service := range programs {
		require.Equal(t, "nats://broker:4222", *compose(t).Services[service].Environment["KANADE_NATS_URL"], service)
	}
	require.NoError(t, events.ValidID(*compose(t).Services["agent"].Environment["KANADE_AGENT_ID"]))
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.FromSlash(path.Clean(name)))
	require.NoError(t, err)
	return string(text)
}

// within gives a path as seen from the root of the workspace.
func within(t *testing.T, name string) string {
	t.Helper()
	root, err := filepath.Abs("..")
	require.NoError(t, err)
	rel, err := filepath.Rel(root, name)
	require.NoError(t, err)
	return rel
}
