//go:build unix

package systemtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/cmd/kanade/internal/client"
	"kanade/libs/bus"
	"kanade/libs/bus/bustest"
)

// kind of a process.
type kind string

const (
	kindBroker    kind = "broker"
	kindScheduler kind = "scheduler"
	kindProjector kind = "projector"
	kindAPI       kind = "api"
	kindAgent     kind = "agent"
)

// process is one program with its surroundings, which outlive its deaths. Only the test's goroutine starts and kills it.
type process struct {
	kind   kind
	name   string
	args   []string
	env    []string
	listen string // where it answers HTTP, if it does
	log    string
	broken context.CancelCauseFunc

	life  *life
	kills []time.Time
}

// life is one run of a process.
type life struct {
	cmd    *exec.Cmd
	ending atomic.Bool // it is being killed
	ended  chan struct{}
	err    error // how it ended; to be read when it has
}

func (p *process) start() error {
	log, err := os.OpenFile(p.log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(p.args[0], p.args[1:]...)
	cmd.Env, cmd.Stdout, cmd.Stderr = p.env, log, log
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	l := &life{cmd: cmd, ended: make(chan struct{})}
	go func() {
		defer close(l.ended)
		if l.err = cmd.Wait(); !l.ending.Load() {
			p.broken(fmt.Errorf("%s ended by itself: %w", p.name, errors.Join(l.err, errors.New(tail(p.log)))))
		}
	}()
	p.life = l
	return nil
}

// kill ends the process with SIGKILL and returns when it is gone.
func (p *process) kill() {
	if p.life == nil {
		return
	}
	p.kills = append(p.kills, time.Now())
	p.life.ending.Store(true)
	_ = p.life.cmd.Process.Kill() // it has ended already, which is told elsewhere
	<-p.life.ended
	p.life = nil
}

// end asks the process to end and returns when it has, and how.
func (p *process) end() error {
	l := p.life
	p.life = nil
	l.ending.Store(true)
	if err := l.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("end %s: %w", p.name, err)
	}
	if <-l.ended; l.err != nil {
		return fmt.Errorf("end %s: %w: %s", p.name, l.err, tail(p.log))
	}
	return nil
}

// tail is the end of a log.
func tail(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-15):], []byte("\n")))
}

// installation is a whole kanade in processes of its own on this machine.
type installation struct {
	t         *testing.T
	dir, bin  string
	brokerURL string
	client    *client.Client
	processes []*process

	// ctx ends when something has gone wrong that the test did not do; its cause says what.
	ctx    context.Context
	broken context.CancelCauseFunc
}

// installationToken is what its broker and API demand.
const installationToken = "installation-token"

// newInstallation builds the programs and starts one of each, but two agents, two projectors and two schedulers. Logs and data
// are left in the directory that KANADE_PROVE_DIR names, if it does.
func newInstallation(t *testing.T) *installation {
	s := emptyInstallation(t)
	s.build()
	s.broker()
	s.add(kindScheduler, "scheduler-1", "", "KANADE_SCHEDULER_LISTEN=127.0.0.1:0")
	s.add(kindScheduler, "scheduler-2", "", "KANADE_SCHEDULER_LISTEN=127.0.0.1:0")
	s.projector("projector-1", "read-model")
	s.projector("projector-2", "read-model")
	api := freeAddress(t)
	s.add(kindAPI, "api", api, "KANADE_API_LISTEN="+api, "KANADE_READ_MODEL_DIR="+filepath.Join(s.dir, "read-model"), "KANADE_AUTH_STATIC_TOKEN="+installationToken)
	s.add(kindAgent, "pc-1", "", "KANADE_AGENT_ID=pc-1", "KANADE_AGENT_DATA="+filepath.Join(s.dir, "pc-1"), "KANADE_AGENT_HEARTBEAT=2s")
	s.add(kindAgent, "pc-2", "", "KANADE_AGENT_ID=pc-2", "KANADE_AGENT_DATA="+filepath.Join(s.dir, "pc-2"), "KANADE_AGENT_HEARTBEAT=2s")
	var err error
	s.client, err = client.New("http://"+api, installationToken, "the test")
	require.NoError(t, err)
	t.Cleanup(s.client.Close)
	for _, p := range s.processes {
		require.NoError(t, p.start())
	}
	return s
}

// emptyInstallation has no processes yet; those that it gets are killed in the end.
func emptyInstallation(t *testing.T) *installation {
	s := &installation{t: t, dir: os.Getenv("KANADE_PROVE_DIR")}
	if s.dir == "" {
		s.dir = t.TempDir()
	}
	s.ctx, s.broken = context.WithCancelCause(t.Context())
	t.Cleanup(func() {
		for _, p := range s.processes {
			p.kill()
		}
	})
	return s
}

func (s *installation) build() {
	s.bin = s.t.TempDir()
	cmd := exec.CommandContext(s.ctx, "go", "build", "-o", s.bin+string(filepath.Separator), "kanade/cmd/kanade",
		"kanade/services/api/cmd/api", "kanade/services/projector/cmd/projector",
		"kanade/services/scheduler/cmd/scheduler", "kanade/services/agent/cmd/agent")
	out, err := cmd.CombinedOutput()
	require.NoError(s.t, err, "%s", out)
}

// broker adds `kanade broker` with a configuration file. The file limit is only there because the streams' byte limits
// are reserved, and a test needs none of it.
func (s *installation) broker() {
	listen := freeAddress(s.t)
	s.brokerURL = "nats://" + listen
	file := filepath.Join(s.dir, "broker.conf")
	text := fmt.Sprintf("listen: %q\nmax_payload: 4MB\nauthorization { token: %q }\njetstream { store_dir: %q, max_file_store: 1TB }\n",
		listen, installationToken, filepath.Join(s.dir, "broker"))
	require.NoError(s.t, os.WriteFile(file, []byte(text), 0o600))
	p := s.add(kindBroker, "broker", listen)
	p.args = []string{filepath.Join(s.bin, "kanade"), "broker", "--config", file}
}

// projector adds a projector on a directory of read models, where it takes a slot of its own.
func (s *installation) projector(name, dir string) *process {
	listen := freeAddress(s.t)
	return s.add(kindProjector, name, listen, "KANADE_PROJECTOR_LISTEN="+listen, "KANADE_READ_MODEL_DIR="+filepath.Join(s.dir, dir))
}

func (s *installation) add(k kind, name, listen string, env ...string) *process {
	p := &process{
		kind: k, name: name, args: []string{filepath.Join(s.bin, string(k))}, listen: listen, broken: s.broken,
		env: append(env, "PATH="+os.Getenv("PATH"), "HOME="+s.dir, "KANADE_NATS_URL="+s.brokerURL, "KANADE_NATS_TOKEN="+installationToken),
		log: filepath.Join(s.dir, name+".log"),
	}
	s.processes = append(s.processes, p)
	return p
}

// connect opens a connection of the test's own.
func (s *installation) connect() *bus.Bus {
	b, err := bus.Connect(s.ctx, bus.Config{URL: s.brokerURL, Token: installationToken, Name: s.t.Name(), Logger: bustest.Logger(s.t)})
	require.NoError(s.t, err)
	return b
}

// of lists the processes of a kind.
func (s *installation) of(k kind) (list []*process) {
	for _, p := range s.processes {
		if p.kind == k {
			list = append(list, p)
		}
	}
	return list
}

// freeAddress finds a free port outside of the range that systems give to outgoing connections: a process that is
// started again must find its port free.
func freeAddress(t *testing.T) string {
	for range 100 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 20_000+rand.IntN(10_000)))
		if err == nil {
			require.NoError(t, l.Close())
			return l.Addr().String()
		}
	}
	t.Fatal("no free port between 20000 and 30000")
	return ""
}

// pause lets the others work for a while; it ends the test when something has gone wrong meanwhile.
func (s *installation) pause(d time.Duration) {
	s.t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.ctx.Done():
		s.t.Fatal(context.Cause(s.ctx))
	}
}

// until asks again and again until there is nothing to complain about, and fails with the last complaint.
func (s *installation) until(limit time.Duration, what string, ask func() error) {
	s.t.Helper()
	deadline := time.Now().Add(limit)
	for {
		err := ask()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%s: not within %s: %v", what, limit, err)
		}
		s.pause(20 * time.Millisecond)
	}
}
