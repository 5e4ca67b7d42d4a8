package projector

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"kanade/libs/bus"
	"kanade/libs/bus/bustest"
	"kanade/libs/events"
	"kanade/libs/readmodel"
)

// diskChild tells the process that may mount disks of its own.
const diskChild = "KANADE_TEST_DISK_CHILD"

// A disk that fills up in the middle of batches stops the projector where it is: nothing is applied in part, the position
// stays, and /readyz, metrics and log say so. When there is room again it goes on, in the same process or in the next one,
// and the rows are those of a clean pass. The disk is a file system in memory whose size is set, so that SQLite hears from
// the system that it is full. It is mounted by a child in namespaces of its own, which takes no privileges and leaves
// nothing behind. What finds no room is the journal. KANADE_PROVE=full fills four disks 50 times each, the last ten times with
// a journal that is full grown, and then it is most often the database; KANADE_SEED repeats a run.
func TestProveDiskFull(t *testing.T) {
	long(t)
	if os.Getenv(diskChild) != "" {
		proveDiskFull(t)
		return
	}
	seed := os.Getenv("KANADE_SEED")
	if seed == "" {
		seed = strconv.FormatInt(time.Now().UnixNano(), 10)
	}
	t.Logf("seed %s", seed)
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestProveDiskFull$", "-test.v", "-test.timeout=30m")
	child.Env = append(os.Environ(), diskChild+"=1", "KANADE_SEED="+seed)
	child.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	said, err := child.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Skipf("this system allows no namespace to mount a disk in: %v", err)
	}
	require.NoError(t, err, "%s", said)
	if bytes.Contains(said, []byte("--- SKIP")) {
		t.Skipf("%s", said)
	}
	at := bytes.Index(said, []byte("PROVED "))
	require.NotEqual(t, -1, at, "%s", said)
	line, _, _ := bytes.Cut(said[at:], []byte("\n"))
	t.Logf("%s", line)
}

func proveDiskFull(t *testing.T) {
	disks, times, grown := 1, 8, 0
	if os.Getenv("KANADE_PROVE") == "full" {
		disks, times, grown = 4, 50, 10
	}
	seed, err := strconv.ParseUint(os.Getenv("KANADE_SEED"), 10, 64)
	require.NoError(t, err)
	var all filled
	for n := range disks {
		synctest.Test(t, func(t *testing.T) { all.fill(t, times, grown, rand.New(rand.NewPCG(seed, uint64(n)))) })
	}
	require.True(t, grown == 0 || all.byDatabase > 0, "no disk was filled by the database")
	t.Logf("PROVED TestProveDiskFull: %d disks, %d times full, %d of them by the database, %d restarts after it, %d messages, %d poison, seed %d",
		disks, all.times, all.byDatabase, all.restarts, all.messages, all.poison, seed)
}

// filled counts what has been done.
type filled struct {
	times, byDatabase, restarts int
	messages, poison            uint64
}

// fill fills a disk so many times while a projector writes to it, the last ones with a journal that is full grown.
func (f *filled) fill(t *testing.T, times, grown int, random *rand.Rand) {
	disk := newDisk(t)
	b := bustest.Connect(t, bustest.Broker(t))
	clean := newCleanPass(t, b)
	log := &diskLog{t: t, bus: b, random: random}
	model := filepath.Join(disk.dir, "read-model")
	p := startWatched(t, b, model)
	defer func() { p.stop() }()
	require.Eventually(t, func() bool { // a file that can't be made ends the start
		_, status := p.ready()
		return status == http.StatusOK
	}, time.Minute, time.Millisecond)
	r := read(t, model)
	file := openModelFile(t, model)
	synctest.Wait()
	for n := range times {
		// Either way the journal can't be emptied once the disk is full: it is too short for that to be tried, or the database
		// has no room for what it holds. Twice the room, because pages that come and go in one transaction are never written.
		ofDatabase := n >= times-grown
		if !ofDatabase {
			file.emptyJournal()
		} else {
			for file.journal() < fullGrown || file.missing() < 2*maxRoom {
				log.append(100)
				waitFor(t, r, log.last)
				synctest.Wait()
			}
		}
		room, size := random.Int64N(maxRoom), file.size()
		disk.fill(room)
		at := p.untilStalled(log, file.journal()+room)
		if ofDatabase {
			require.Positive(t, file.missing(), "no checkpoint has emptied the journal")
		}
		if file.size() > size {
			f.byDatabase++
		}
		applied, _, err := r.Applied(t.Context())
		require.NoError(t, err, "reads go on")
		require.Equal(t, at, applied)
		require.Equal(t, 1.0, p.gauge("kanade_projector_stalled"))
		require.Equal(t, float64(log.last-at), p.gauge("kanade_projector_lag_messages"))
		require.Contains(t, p.log.String(), "staying here and trying again")
		time.Sleep(time.Duration(1+random.IntN(60)) * time.Second)
		stalled, status := p.ready()
		require.Equal(t, http.StatusServiceUnavailable, status)
		require.Equal(t, at, stalled.Applied)
		f.times++
		if random.IntN(2) == 0 {
			f.restarts++
			p.stop()
			disk.free()
			clean.compare(model, at)
			p = startWatched(t, b, model)
		} else {
			disk.free()
		}
		waitFor(t, r, log.last)
		time.Sleep(2 * pollEvery) // what is committed is seen a moment before the projector says so
		synctest.Wait()
		state, status := p.ready()
		require.Equal(t, http.StatusOK, status)
		require.Empty(t, state.Error)
		require.Zero(t, p.gauge("kanade_projector_stalled"))
	}
	p.stop()
	clean.compare(model, log.last)
	dead, err := b.LastSeq(t.Context(), events.StreamDead)
	require.NoError(t, err)
	require.Equal(t, log.poison, dead, "parked once each")
	f.messages, f.poison = f.messages+log.last, f.poison+log.poison
}

// disk is a file system that a test sets the size of.
type disk struct {
	t   *testing.T
	dir string
}

const (
	diskRoom = 1 << 30
	// maxRoom is more than is ever left on a disk that was filled.
	maxRoom = 1 << 20
)

func newDisk(t *testing.T) *disk {
	d := &disk{t, t.TempDir()}
	err := syscall.Mount("tmpfs", d.dir, "tmpfs", 0, fmt.Sprintf("size=%d", diskRoom))
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) {
		t.Skipf("this system lets no namespace mount a disk: %v", err)
	}
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(d.dir, 0)) })
	return d
}

func (d *disk) resize(size int64) error {
	return syscall.Mount("tmpfs", d.dir, "tmpfs", syscall.MS_REMOUNT, fmt.Sprintf("size=%d", size))
}

// fill leaves so many bytes.
func (d *disk) fill(room int64) {
	d.t.Helper()
	var now syscall.Statfs_t
	require.NoError(d.t, syscall.Statfs(d.dir, &now))
	used := int64(now.Blocks-now.Bfree) * now.Bsize
	require.NoError(d.t, d.resize(used+room/now.Bsize*now.Bsize))
}

func (d *disk) free() {
	d.t.Helper()
	require.NoError(d.t, d.resize(diskRoom))
}

// modelFile is the file that a projector writes, looked at from beside it. It is asked only while the projector writes nothing.
type modelFile struct {
	t    *testing.T
	path string
	db   *sql.DB
}

const (
	pageSize = 4 << 10
	// fullGrown is how long the journal is when its pages go into the database, which it does at 10000 of them. From then on
	// it is written over from its beginning, and takes nothing from the disk until that fails.
	fullGrown = 10000 * (24 + pageSize)
)

func openModelFile(t *testing.T, dir string) *modelFile {
	found, err := filepath.Glob(filepath.Join(dir, "slot-*", "model-*.db"))
	require.NoError(t, err)
	require.Len(t, found, 1)
	db, err := sql.Open("sqlite", "file:"+found[0]+"?mode=rw&_pragma=busy_timeout(5000)")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return &modelFile{t, found[0], db}
}

func (m *modelFile) size() int64    { return m.sizeOf(m.path) }
func (m *modelFile) journal() int64 { return m.sizeOf(m.path + "-wal") }

func (m *modelFile) sizeOf(path string) int64 {
	m.t.Helper()
	info, err := os.Stat(path) // SQLite's locks are lost when somebody else in the process opens the file and closes it
	require.NoError(m.t, err)
	return info.Size()
}

// missing is how much longer the database is to become, by what the journal has for it.
func (m *modelFile) missing() int64 {
	m.t.Helper()
	var pages int64
	require.NoError(m.t, m.db.QueryRowContext(m.t.Context(), "PRAGMA page_count").Scan(&pages))
	return pages*pageSize - m.size()
}

// emptyJournal brings everything into the database.
func (m *modelFile) emptyJournal() {
	m.t.Helper()
	var busy, pages, done int
	require.NoError(m.t, m.db.QueryRowContext(m.t.Context(), "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &pages, &done))
	require.Zero(m.t, busy)
	require.Zero(m.t, m.journal())
}

// watched is a running projector and what it says of itself.
type watched struct {
	t       *testing.T
	log     *safeBuffer
	metrics *prometheus.Registry
	client  *http.Client
	stop    func()
}

func startWatched(t *testing.T, b *bus.Bus, dir string) *watched {
	l := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
	w := &watched{t: t, log: &safeBuffer{}, metrics: prometheus.NewRegistry(), client: &http.Client{
		Transport: &http.Transport{DialContext: l.dial, DisableKeepAlives: true},
	}}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- Run(ctx, Config{ReadModelDir: dir, MaxBatch: 50, SnapshotEvery: -1}, Deps{
			Bus: b, Listener: l, Metrics: w.metrics, Logger: slog.New(slog.NewTextHandler(w.log, nil)),
		})
	}()
	w.stop = func() {
		t.Helper()
		cancel()
		require.NoError(t, <-ended)
		w.stop = func() {}
	}
	return w
}

// ready is what /readyz says of the log.
func (w *watched) ready() (position, int) {
	w.t.Helper()
	answer, err := w.client.Get("http://projector/readyz")
	require.NoError(w.t, err)
	defer answer.Body.Close()
	var all []position
	require.NoError(w.t, json.NewDecoder(answer.Body).Decode(&all))
	require.Equal(w.t, events.StreamLog, all[0].Stream)
	return all[0], answer.StatusCode
}

// gauge is a gauge of the log's feed.
func (w *watched) gauge(name string) float64 {
	w.t.Helper()
	families, err := w.metrics.Gather()
	require.NoError(w.t, err)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			for _, label := range m.GetLabel() {
				if f.GetName() == name && label.GetName() == "stream" && label.GetValue() == events.StreamLog {
					return m.GetGauge().GetValue()
				}
			}
		}
	}
	w.t.Fatalf("no metric %s", name)
	return 0
}

// untilStalled appends to the log until the projector can't follow, and gives its position. A journal that can't be emptied
// holds every text it was given, so that it is full at the latest when they are more bytes than there is room for it.
func (w *watched) untilStalled(log *diskLog, journal int64) uint64 {
	w.t.Helper()
	for most := log.text + journal; log.text <= most; {
		log.append(100)
		time.Sleep(time.Second)
		if state, status := w.ready(); status != http.StatusOK && state.Error != "" {
			require.Contains(w.t, state.Error, "apply LOG")
			return state.Applied
		}
	}
	w.t.Fatal("the disk does not fill up")
	return 0
}

// diskLog appends execs from request to results, with a message that can't be read now and then.
type diskLog struct {
	t            *testing.T
	bus          *bus.Bus
	random       *rand.Rand
	n            int
	text         int64 // bytes of all outputs that can be read
	last, poison uint64
}

func (l *diskLog) append(n int) {
	l.t.Helper()
	messages := make([]*nats.Msg, n)
	for i := range messages {
		const runs = 10
		exec, step := fmt.Sprintf("e%d", l.n/(2+2*runs)), l.n%(2+2*runs)
		pc := fmt.Sprintf("pc-%02d", step/2)
		run := events.Run{PCID: pc, ExecID: exec, RequestID: exec + pc, ResultID: exec + pc, JobID: "hello", Version: "1"}
		var p events.Payload
		var text string
		switch {
		case step == 0:
			p = requested(exec)
		case step == 1:
			planned := events.ExecPlanned{ExecID: exec, Waves: make([]events.PlannedWave, 1)}
			for pc := range runs {
				planned.Waves[0].Expected = append(planned.Waves[0].Expected, fmt.Sprintf("pc-%02d", pc+1))
			}
			p = planned
		case step%2 == 0:
			p = events.RunStarted{Run: run, StartedAt: time.Now().UTC()}
		default:
			text = strings.Repeat("x", l.random.IntN(4<<10))
			p = events.RunFinished{
				Run: run, FinishedAt: time.Now().UTC(), State: events.StateSucceeded, Stdout: events.Output{Text: text, Bytes: int64(len(text))},
			}
		}
		l.n++
		e := event(l.t, p, "")
		h, body, err := e.Encode()
		require.NoError(l.t, err)
		messages[i] = &nats.Msg{Subject: e.NATSSubject(), Header: nats.Header(h), Data: body}
		if l.random.IntN(200) == 0 {
			l.poison++
			text = ""
			messages[i] = &nats.Msg{Subject: "results.x", Data: []byte("poison")}
		}
		l.text += int64(len(text))
	}
	require.NoError(l.t, l.bus.PublishAll(l.t.Context(), messages, 0))
	var err error
	l.last, err = l.bus.LastSeq(l.t.Context(), events.StreamLog)
	require.NoError(l.t, err)
}

// cleanPass is a read model on a disk that is never full.
type cleanPass struct {
	t      *testing.T
	bus    *bus.Bus
	writer *readmodel.Writer
	at     uint64
}

func newCleanPass(t *testing.T, b *bus.Bus) *cleanPass {
	w, err := readmodel.OpenWriter(t.Context(), t.TempDir())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, w.Close()) })
	return &cleanPass{t: t, bus: b, writer: w}
}

// compare holds the rows of a model against those of a clean pass up to where the model must be.
func (c *cleanPass) compare(dir string, at uint64) {
	c.t.Helper()
	w, err := readmodel.OpenWriter(c.t.Context(), dir)
	require.NoError(c.t, err)
	defer func() { require.NoError(c.t, w.Close()) }()
	checkpoint, err := w.Checkpoint(events.StreamLog)
	require.NoError(c.t, err)
	require.Equal(c.t, at, checkpoint.Sequence)
	var messages []readmodel.Message
	for seq := c.at + 1; seq <= at; seq++ {
		m, ok, err := c.bus.Get(c.t.Context(), events.StreamLog, seq)
		require.NoError(c.t, err)
		require.True(c.t, ok)
		messages = append(messages, readmodel.Message(m))
	}
	_, err = c.writer.Apply(c.t.Context(), events.StreamLog, messages)
	require.NoError(c.t, err)
	c.at = max(c.at, at)
	want, err := c.writer.Digest(c.t.Context())
	require.NoError(c.t, err)
	have, err := w.Digest(c.t.Context())
	require.NoError(c.t, err)
	require.Equal(c.t, want, have)
}

// pipes is a listener in memory: what dials it gets one end of a net.Pipe.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "pipe"} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case p.conns <- there:
		return here, nil
	case <-p.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// safeBuffer is written by one goroutine and read by another.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
