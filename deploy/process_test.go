//go:build unix

package deploy

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/stretchr/testify/require"

	"kanade/libs/bus/broker"
)

// patience bounds each wait; a start takes less than a second.
const patience = 30 * time.Second

// The services of the compose file, two of each that scales, as processes of this machine: the same programs with the
// same environment against a broker with the same configuration. They become healthy, carry out an exec from the request
// to the result, and end cleanly.
func TestProcessesOfTheComposeFile(t *testing.T) {
	s := newSite(t)
	var all []*process
	for _, service := range []string{"projector", "projector", "scheduler", "scheduler", "api", "api", "agent"} {
		all = append(all, s.start(service))
	}
	for _, p := range all {
		require.Eventually(t, p.healthy, patience, 50*time.Millisecond, "%s does not become healthy", p.service)
	}
	first, second := all[4], all[5]

	require.Equal(t, http.StatusUnauthorized, first.ask(http.MethodGet, "/api/jobs", "", "", "").status)
	manifest := read(t, "../examples/jobs/sh/hello.yaml")
	require.Equal(t, http.StatusOK, first.ask(http.MethodPost, "/api/jobs", s.token, "application/yaml", manifest).status)
	var exec struct {
		ExecID string `json:"exec_id"`
	}
	first.ask(http.MethodPost, "/api/exec/hello", s.token, "application/json", `{"target": {"pcs": ["demo-agent"]}}`).into(&exec)
	require.NotEmpty(t, exec.ExecID)
	last := &answer{}
	require.Eventually(t, func() bool { // the other api answers too
		*last = *second.ask(http.MethodGet, "/api/executions/"+exec.ExecID, s.token, "", "")
		return strings.Contains(string(last.body), `"outcome":"succeeded"`)
	}, patience, 20*time.Millisecond, "%s", last)
	var results []struct {
		ExecID string `json:"exec_id"`
		PC     string `json:"pc_id"`
		Stdout string `json:"stdout"`
	}
	second.ask(http.MethodGet, "/api/results", s.token, "", "").into(&results)
	require.Len(t, results, 1)
	require.Equal(t, exec.ExecID, results[0].ExecID)
	require.Equal(t, "demo-agent", results[0].PC)
	require.Contains(t, results[0].Stdout, "Hello from ")

	for i := len(all) - 1; i >= 0; i-- {
		all[i].end()
	}
}

// The line that the compose file gives for making secrets makes them.
func TestSecretsAreMadeByTheDocumentedLine(t *testing.T) {
	dir := makeSecrets(t)
	for name := range compose(t).Secrets {
		text, err := os.ReadFile(filepath.Join(dir, "deploy", "secrets", name))
		require.NoError(t, err)
		require.Regexp(t, `^[0-9a-f]{64}$`, string(text), name)
	}
	info, err := os.Stat(filepath.Join(dir, "deploy", "secrets"))
	require.NoError(t, err)
	require.EqualValues(t, 0o700, info.Mode().Perm())
}

func makeSecrets(t *testing.T) string {
	t.Helper()
	line := regexp.MustCompile(`(?m)^#   (mkdir .*)$`).FindStringSubmatch(read(t, "../docker-compose.yml"))
	require.NotNil(t, line)
	dir := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(dir, "deploy"), 0o700))
	cmd := exec.CommandContext(t.Context(), "sh", "-c", line[1])
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return dir
}

// site is the one machine on which the containers' processes run.
type site struct {
	t       *testing.T
	project *types.Project
	root    string // what the containers have at /
	broker  string // its address
	token   string
}

func newSite(t *testing.T) *site {
	s := &site{t: t, project: compose(t), root: t.TempDir()}
	for name, secret := range s.project.Secrets {
		text, err := os.ReadFile(filepath.Join(makeSecrets(t), within(t, secret.File)))
		require.NoError(t, err)
		file := filepath.Join(s.root, "run", "secrets", name)
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o700))
		require.NoError(t, os.WriteFile(file, text, 0o600))
	}
	secret := func(name string) string { return read(t, filepath.Join(s.root, "run", "secrets", name)) }
	s.token = secret("api-token")
	t.Setenv("KANADE_NATS_TOKEN", "'"+secret("broker-token")+"'") // as the broker's entrypoint does
	b, err := broker.Start(broker.Config{
		File: "nats.conf", Listen: "127.0.0.1:0", StoreDir: filepath.Join(s.root, "broker"), Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	t.Cleanup(b.Shutdown)
	require.Equal(t, secret("broker-token"), b.Token())
	s.broker = b.URL()
	return s
}

// process is one container's process.
type process struct {
	*site
	service, listen string
	env             []string
	cmd             *exec.Cmd
	says            *lines
}

// start runs a service with the environment of the compose file; addresses and paths are those of this machine.
func (s *site) start(service string) *process {
	s.t.Helper()
	p := &process{site: s, service: service, says: &lines{}, env: []string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.root}}
	for name, value := range s.project.Services[service].Environment {
		v := *value
		switch {
		case name == "KANADE_NATS_URL":
			v = s.broker
		case strings.HasSuffix(name, "_LISTEN"):
			v = freeAddress(s.t)
			p.listen = v
		case strings.HasPrefix(v, "/"):
			v = filepath.Join(s.root, v)
		}
		p.env = append(p.env, name+"="+v)
	}
	p.cmd = exec.CommandContext(context.WithoutCancel(s.t.Context()), program(s.t, service))
	p.cmd.Env, p.cmd.Dir, p.cmd.Stderr = p.env, s.root, p.says
	require.NoError(s.t, p.cmd.Start())
	s.t.Cleanup(func() {
		if p.cmd.ProcessState == nil {
			_ = p.cmd.Process.Kill()
			_ = p.cmd.Wait()
		}
		if s.t.Failed() {
			s.t.Logf("%s said:\n%s", service, p.says)
		}
	})
	return p
}

// healthy asks as the container's health check does.
func (p *process) healthy() bool {
	ctx, cancel := context.WithTimeout(p.t.Context(), 5*time.Second)
	defer cancel()
	check := exec.CommandContext(ctx, p.cmd.Path, "healthcheck")
	check.Env, check.Dir = p.env, p.root
	return check.Run() == nil
}

// end stops the process as Docker does.
func (p *process) end() {
	p.t.Helper()
	require.NoError(p.t, p.cmd.Process.Signal(syscall.SIGTERM))
	ended := make(chan error, 1)
	go func() { ended <- p.cmd.Wait() }()
	select {
	case err := <-ended:
		require.NoError(p.t, err, "%s does not end cleanly", p.service)
	case <-time.After(time.Duration(*p.project.Services[p.service].StopGracePeriod)):
		require.FailNow(p.t, p.service+" does not end in the time that its container is given")
	}
}

type answer struct {
	t      *testing.T
	status int
	body   []byte
}

func (a *answer) String() string { return strconv.Itoa(a.status) + " " + string(a.body) }

func (a *answer) into(v any) {
	a.t.Helper()
	require.Equal(a.t, http.StatusOK, a.status, "%s", a.body)
	require.NoError(a.t, json.Unmarshal(a.body, v), "%s", a.body)
}

func (p *process) ask(method, path, token, contentType, body string) *answer {
	p.t.Helper()
	r, err := http.NewRequestWithContext(p.t.Context(), method, "http://"+p.listen+path, strings.NewReader(body))
	require.NoError(p.t, err)
	r.Header.Set("Content-Type", contentType)
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	got, err := http.DefaultClient.Do(r)
	require.NoError(p.t, err)
	defer got.Body.Close()
	text, err := io.ReadAll(got.Body)
	require.NoError(p.t, err)
	return &answer{p.t, got.StatusCode, text}
}

// freeAddress is an address that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().String()
}

// lines keeps what a process says.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
