//go:build unix

package systemtest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/cmd/kanade/internal/client"
	"kanade/libs/bus"
	"kanade/libs/events"
	"kanade/libs/readmodel"
)

// Clients read without a pause, lists and single things, with and without a sequence that they want to see, and one writes,
// while the read model under them is exchanged again and again: every copy is rebuilt; projectors and api are upgraded to
// programs with another schema, and rolled back, with new ones beside the old ones or in their place; projectors are killed
// with SIGKILL at random points, also while they build. No read fails, none is torn, and none is older than what the same
// client has seen from the same API. In the end every row is as the log says.
//
// As many rounds as fit into 12 s, or 100 with KANADE_PROVE=full (about ten minutes: -timeout 30m). A round is a rebuild and a
// switch to the other version. KANADE_SEED repeats the choices, not the order in which processes get on.
func TestProveSwitch(t *testing.T) {
	long(t)
	until := func(n int, since time.Time) bool { return n >= 2 && time.Since(since) > 12*time.Second }
	if os.Getenv("KANADE_PROVE") == "full" {
		until = func(n int, _ time.Time) bool { return n == 100 }
	}
	seed := drawnSeed(t)
	s := newSwitching(t, rand.New(rand.NewPCG(seed, 1)))
	l := s.startReading(seed)
	rounds := 0
	for began := time.Now(); !until(rounds, began); rounds++ {
		s.killSome(0, 2)
		if s.random.IntN(2) == 0 {
			s.breakRebuild()
		}
		s.rebuild()
		s.killSome(0, 1)
		if rounds%4 == 3 {
			s.upgradeInPlace(l)
		} else {
			s.upgrade(l)
		}
	}
	l.end()
	s.verify()
	s.age()
	require.Zero(t, l.failed.Load(), "failed reads")
	t.Logf("PROVED %s: %d rounds: %d rebuilds, %d more broken off, %d upgrades and roll-backs beside, %d in place, %d kills of projectors; "+
		"%d reads by %d clients, %d of them with a sequence, %d writes, 0 failed, 0 torn, 0 older, seed %d",
		t.Name(), rounds, s.rebuilds, s.brokenOff, s.upgrades, s.inPlace, s.kills, l.reads.Load(), readClients, l.sequenced.Load(), len(l.written), seed)
}

// release is the programs of one schema, with the processes that run them.
type release struct {
	name       string
	projectors []*process
	api        *process
}

// switching is an installation with two versions, one of which runs.
type switching struct {
	*installation
	random *rand.Rand
	// now is the version that runs, other the one that does not.
	now, other *release
	bus        *bus.Bus

	rebuilds, brokenOff, repeats, upgrades, inPlace, kills int
}

func newSwitching(t *testing.T, random *rand.Rand) *switching {
	s := &switching{installation: emptyInstallation(t), random: random}
	s.bin = t.TempDir()
	this, next := filepath.Join(s.bin, "this"), filepath.Join(s.bin, "next")
	s.buildInto(this, "kanade/cmd/kanade", "kanade/services/api/cmd/api", "kanade/services/projector/cmd/projector")
	s.buildInto(next, "-tags=kanade_next_schema", "kanade/services/api/cmd/api", "kanade/services/projector/cmd/projector")
	s.bin = this
	s.broker()
	s.now = s.newRelease("this")
	s.bin = next
	s.other = s.newRelease("next")
	s.bin = this
	for _, p := range s.of(kindBroker) {
		require.NoError(t, p.start())
	}
	for _, p := range s.now.projectors {
		require.NoError(t, p.start())
	}
	require.NoError(t, s.now.api.start())
	s.await(s.now.api)
	s.fill()
	return s
}

// buildInto builds programs; arguments are those of go build.
func (s *switching) buildInto(dir string, arguments ...string) {
	require.NoError(s.t, os.Mkdir(dir, 0o700))
	cmd := exec.CommandContext(s.ctx, "go", append([]string{"build", "-o", dir + string(filepath.Separator)}, arguments...)...)
	out, err := cmd.CombinedOutput()
	require.NoError(s.t, err, "%s", out)
}

// newRelease adds the processes of the programs in s.bin: two projectors and an api.
func (s *switching) newRelease(name string) *release {
	v := &release{name: name}
	for _, n := range []string{"1", "2"} {
		v.projectors = append(v.projectors, s.projector("projector-"+name+"-"+n, "read-model"))
	}
	listen := freeAddress(s.t)
	v.api = s.add(kindAPI, "api-"+name, listen, "KANADE_API_LISTEN="+listen,
		"KANADE_READ_MODEL_DIR="+s.readModel(), "KANADE_AUTH_STATIC_TOKEN="+installationToken)
	return v
}

func (s *switching) readModel() string { return filepath.Join(s.dir, "read-model") }

// await waits until a process calls itself ready.
func (s *switching) await(p *process) {
	s.t.Helper()
	s.until(time.Minute, p.name+" is ready", func() error {
		r, err := http.NewRequestWithContext(s.ctx, http.MethodGet, "http://"+p.listen+"/readyz", nil)
		if err != nil {
			return err
		}
		r.Close = true
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			return err
		}
		if err := answer.Body.Close(); err != nil {
			return err
		}
		if answer.StatusCode != http.StatusOK {
			return errors.New(answer.Status)
		}
		return nil
	})
}

// filler is how many results are there from the beginning: what makes a build take a while.
const filler = 6000

func (s *switching) fill() {
	const workers = 8
	s.bus = s.connect()
	s.t.Cleanup(s.bus.Close)
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			for n := w; n < filler; n += workers {
				if err := s.tell(n, 0); err != nil {
					s.broken(err)
					return
				}
			}
		})
	}
	all.Wait()
	s.until(time.Minute, "the read model has all", func() error {
		for _, p := range s.now.projectors {
			if err := hasApplied(s.ctx, p, s.lastSequence()); err != nil {
				return err
			}
		}
		return nil
	})
}

// tell appends a result; one that was told before changes no row.
func (s *switching) tell(n, again int) error {
	id, at := fmt.Sprint("filler-", n), time.Now().UTC()
	e, err := events.New(events.RunFinished{
		Run:       events.Run{PCID: fmt.Sprint("pc-", n%100), ExecID: "filler", RequestID: id, ResultID: id, JobID: "filler", Version: "1"},
		StartedAt: at, FinishedAt: at, State: events.StateSucceeded, Stdout: events.Output{Text: strings.Repeat("nothing to do\n", 20)},
	}, events.Meta{ID: events.DeriveID(id, strconv.Itoa(again)), Source: "/kanade/test", Time: at, Actor: "service:test"})
	if err == nil {
		_, err = s.bus.Append(s.ctx, e, bus.Any)
	}
	return err
}

// repeat tells results again, as fast as it can, until it has told enough or is to end: so that files are not equally far
// while one takes the other's place.
func (s *switching) repeat() (end func()) {
	stop := make(chan struct{})
	var work sync.WaitGroup
	s.repeats++
	for w := range 2 {
		work.Go(func() {
			for n := w; n < 400; n += 2 {
				select {
				case <-stop:
					return
				default:
				}
				if err := s.tell(n, s.repeats); err != nil {
					s.broken(err)
					return
				}
			}
		})
	}
	return func() { close(stop); work.Wait() }
}

// killSome kills some of the version's projectors, and starts them again.
func (s *switching) killSome(least, most int) {
	for range least + s.random.IntN(most-least+1) {
		p := s.now.projectors[s.random.IntN(len(s.now.projectors))]
		s.killed(p)
		s.pause(time.Duration(s.random.Int64N(int64(200 * time.Millisecond))))
		require.NoError(s.t, p.start())
		s.pause(time.Duration(s.random.Int64N(int64(200 * time.Millisecond))))
	}
	for _, p := range s.now.projectors {
		s.await(p)
	}
}

func (s *switching) killed(p *process) {
	p.kill()
	s.kills++
}

// kanade runs the command line against the API of the version that runs.
func (s *switching) kanade(arguments ...string) {
	s.t.Helper()
	cmd := exec.CommandContext(s.ctx, filepath.Join(s.bin, "kanade"), arguments...)
	cmd.Env = []string{"HOME=" + s.dir, "KANADE_BACKEND_URL=http://" + s.now.api.listen, "KANADE_AUTH_TOKEN=" + installationToken}
	out, err := cmd.CombinedOutput()
	require.NoError(s.t, err, "kanade %s: %s", strings.Join(arguments, " "), out)
}

// rebuild builds every copy anew, as an operator does.
func (s *switching) rebuild() {
	defer s.repeat()()
	s.kanade("projector", "rebuild", "--replicas", strconv.Itoa(len(s.now.projectors)), "--timeout", "10m")
	s.rebuilds++
}

// breakRebuild kills projectors while they build, or just after.
func (s *switching) breakRebuild() {
	c, err := client.New("http://"+s.now.api.listen, installationToken, "the test")
	require.NoError(s.t, err)
	defer c.Close()
	_, err = c.Do(s.ctx, client.Request{Method: http.MethodPost, Path: "/api/read-model/rebuild", Body: []byte(`{}`), ContentType: client.JSON})
	require.NoError(s.t, err)
	s.pause(time.Duration(s.random.Int64N(int64(1500 * time.Millisecond))))
	s.killSome(1, 2)
	s.brokenOff++
}

// verify holds every row of every copy against the log.
func (s *switching) verify() {
	s.kanade("projector", "verify", "--replicas", strconv.Itoa(len(s.now.projectors)), "--timeout", "10m")
}

// upgrade exchanges the version that runs for the other one as docs/operations.md says: a new projector, which takes a slot
// of its own, then a new API, then clients move, then the old ones go. Half of the times the other version's files are
// not there any more, so that they are built.
func (s *switching) upgrade(l *reading) {
	first := s.other.projectors[0]
	built := s.random.IntN(2) == 0
	least := uint64(0)
	if s.forget(built); built { // an API that is there before its file is ready when that is whole
		least = s.lastSequence()
		require.NoError(s.t, s.other.api.start())
	}
	require.NoError(s.t, first.start())
	for range s.random.IntN(3) { // killed while it builds, or catches up
		s.pause(time.Duration(s.random.Int64N(int64(300 * time.Millisecond))))
		s.killed(first)
		require.NoError(s.t, first.start())
	}
	if built {
		s.until(time.Minute, "the new API is ready", func() error { return s.isReadyAt(s.other.api, least) })
	}
	s.await(first)
	if !built {
		require.NoError(s.t, s.other.api.start())
	}
	s.await(s.other.api)
	s.move(l)
	for _, p := range s.other.projectors {
		if s.random.IntN(2) == 0 {
			s.killed(p)
		} else {
			require.NoError(s.t, p.end())
		}
	}
	require.NoError(s.t, s.now.projectors[1].start())
	s.await(s.now.projectors[1])
	s.upgrades++
}

// isReadyAt asks an API for its state. To be ready with less than was in the log ends the test.
func (s *switching) isReadyAt(p *process, least uint64) error {
	state, status, err := askState(s.ctx, p)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("%d, %+v", status, state)
	}
	if err == nil && state.ReadModel.AppliedSequence < least {
		s.broken(fmt.Errorf("%s is ready at %d of %d", p.name, state.ReadModel.AppliedSequence, least))
	}
	return err
}

// upgradeInPlace ends the old projectors before the new ones begin: until those have caught up the old API answers what
// it has, and says how old that is. So does one that is started meanwhile.
func (s *switching) upgradeInPlace(l *reading) {
	l.turn(&phase{api: s.now.api, unfed: true})
	for _, p := range s.now.projectors {
		if s.random.IntN(2) == 0 {
			s.killed(p)
		} else {
			require.NoError(s.t, p.end())
		}
	}
	s.forget(true)
	listen := freeAddress(s.t)
	another := *s.now.api
	another.name, another.listen, another.life = s.now.api.name+"-restarted", listen, nil
	another.env = append(slices.Clone(another.env), "KANADE_API_LISTEN="+listen)
	require.NoError(s.t, another.start())
	defer another.kill()
	s.await(&another)
	s.until(time.Minute, "the old API says how old its file is", func() error { return saysItsAge(s.ctx, &another) })
	for _, p := range s.other.projectors {
		require.NoError(s.t, p.start())
	}
	for _, p := range s.other.projectors {
		s.await(p)
	}
	require.NoError(s.t, s.other.api.start())
	s.await(s.other.api)
	s.move(l)
	s.inPlace++
}

// move sends clients to the other version's API, ends the one that they have left, and makes the other version the one
// that runs.
func (s *switching) move(l *reading) {
	l.turn(&phase{api: s.other.api})
	require.NoError(s.t, s.now.api.end())
	s.now, s.other = s.other, s.now
}

// forget deletes the files of the version that does not run, as after a week.
func (s *switching) forget(really bool) {
	if !really {
		return
	}
	for _, path := range s.files(s.other) {
		require.NoError(s.t, os.Remove(path))
	}
}

// files of a version, with what SQLite keeps beside them. This program is of the schema "this".
func (s *switching) files(v *release) (list []string) {
	all, err := filepath.Glob(filepath.Join(s.readModel(), "slot-*", "model-*"))
	require.NoError(s.t, err)
	for _, path := range all {
		if strings.HasPrefix(filepath.Base(path), "model-"+readmodel.SchemaID()) == (v.name == "this") {
			list = append(list, path)
		}
	}
	return list
}

// age makes the other version's files a week old: the projectors remove those of their slots when they are started again,
// and say so; those of slots that nobody owns stay.
func (s *switching) age() {
	s.t.Helper()
	long := time.Now().Add(-readmodel.KeptFor - time.Minute)
	for _, path := range s.files(s.other) {
		require.NoError(s.t, os.Chtimes(path, long, long))
	}
	owned := map[string]bool{}
	for _, path := range s.files(s.now) {
		owned[filepath.Dir(path)] = true
	}
	for _, p := range s.now.projectors {
		require.NoError(s.t, p.end())
		require.NoError(s.t, p.start())
	}
	s.until(time.Minute, "files of the other version are removed", func() error {
		for _, path := range s.files(s.other) {
			if owned[filepath.Dir(path)] {
				return fmt.Errorf("%s is there", path)
			}
		}
		return nil
	})
}
