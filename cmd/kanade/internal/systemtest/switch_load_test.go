//go:build unix

package systemtest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/cmd/kanade/internal/client"
)

// readClients is how many read at once; one more writes.
const readClients = 6

// phase is what holds for the clients at some time: they notice when another one begins before they read the next thing.
type phase struct {
	api *process
	// unfed: nobody feeds what the API reads, so that nobody may wait for what is written.
	unfed bool
	// using are the clients that have begun in it and not ended.
	using sync.WaitGroup
}

// write is an exec that was accepted.
type write struct {
	id       string
	sequence uint64
}

// reading is the clients, and the load balancer before the APIs.
type reading struct {
	on                       *switching
	http                     *http.Client
	stop                     chan struct{}
	work                     sync.WaitGroup
	reads, sequenced, failed atomic.Int64

	mu      sync.Mutex
	phase   *phase
	written []write
}

// startReading registers a job and lets the clients begin.
func (s *switching) startReading(seed uint64) *reading {
	transport := &http.Transport{MaxIdleConnsPerHost: readClients + 1}
	l := &reading{on: s, http: &http.Client{Timeout: 30 * time.Second, Transport: transport}, stop: make(chan struct{}), phase: &phase{api: s.now.api}}
	s.t.Cleanup(l.http.CloseIdleConnections)
	_, _, err := l.do(s.now.api, http.MethodPost, "/api/jobs", `{"id":"job","version":"1","execute":{"shell":"sh","timeout":"30s","script":"true"}}`, 0)
	require.NoError(s.t, err)
	require.NoError(s.t, l.write())
	l.work.Go(func() {
		for l.next(5 * time.Millisecond) {
			if err := l.write(); err != nil {
				s.broken(fmt.Errorf("write: %w", err))
				return
			}
		}
	})
	for n := range uint64(readClients) {
		l.work.Go(func() {
			c := &readClient{load: l, random: rand.New(rand.NewPCG(seed, 100+n))}
			for l.next(0) {
				if err := c.read(); err != nil && s.ctx.Err() == nil {
					l.failed.Add(1)
					s.t.Errorf("client %d: %v", n, err)
				}
			}
		})
	}
	return l
}

// next waits for a while; false at the end.
func (l *reading) next(pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-l.stop:
		return false
	case <-l.on.ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// end lets the last requests be answered.
func (l *reading) end() {
	close(l.stop)
	l.work.Wait()
	if l.on.ctx.Err() != nil {
		l.on.t.Fatal(context.Cause(l.on.ctx))
	}
}

// begin is the phase of the moment, and what was written until now; end is to be called when the client has its answer.
func (l *reading) begin() (p *phase, written []write, end func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.phase.using.Add(1)
	return l.phase, l.written[:len(l.written):len(l.written)], l.phase.using.Done
}

// turn begins another phase, and returns when no client is in the one before.
func (l *reading) turn(next *phase) {
	l.mu.Lock()
	before := l.phase
	l.phase = next
	l.mu.Unlock()
	before.using.Wait()
}

// do sends a request to an API; what the answer has to see is a sequence, or 0. An answer that is no success is an error.
func (l *reading) do(api *process, method, path, body string, least uint64) ([]byte, http.Header, error) {
	r, err := http.NewRequestWithContext(l.on.ctx, method, "http://"+api.listen+path, strings.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	r.Header.Set("Authorization", "Bearer "+installationToken)
	if body != "" {
		r.Header.Set("Content-Type", client.JSON)
	}
	if least > 0 {
		r.Header.Set("Kanade-Min-Sequence", strconv.FormatUint(least, 10))
	}
	answer, err := l.http.Do(r)
	if err != nil {
		return nil, nil, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode/100 != 2 {
		err = fmt.Errorf("%s: %s", answer.Status, text)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%s %s from %s, as of %d: %w", method, path, api.name, least, err)
	}
	return text, answer.Header, nil
}

// write asks for an exec.
func (l *reading) write() error {
	p, _, end := l.begin()
	defer end()
	text, header, err := l.do(p.api, http.MethodPost, "/api/exec/job", `{"target":{"pcs":["pc-1"]}}`, 0)
	if err != nil {
		return err
	}
	var requested client.Requested
	if err := json.Unmarshal(text, &requested); err != nil {
		return err
	}
	seq, err := strconv.ParseUint(header.Get("Kanade-Sequence"), 10, 64)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.written = append(l.written, write{requested.ExecID, seq})
	return nil
}

// readClient is one that reads, with what it knows.
type readClient struct {
	load   *reading
	random *rand.Rand
	phase  *phase
	from   *process // where the last answer came from
	seen   uint64   // how far that was; 0 where another API is asked than before
}

// read reads something and holds it against what was written and seen.
func (c *readClient) read() error {
	l := c.load
	p, written, end := l.begin()
	defer end()
	if c.phase = p; c.from != p.api {
		c.from, c.seen = p.api, 0
	}
	known := written[max(0, len(written)-1-c.random.IntN(100))]
	least := uint64(0)
	switch {
	case c.random.IntN(2) == 0:
	case p.unfed:
		least = c.seen
	default:
		least = written[len(written)-1].sequence
	}
	if least > 0 {
		l.sequenced.Add(1)
	}
	defer l.reads.Add(1)
	switch c.random.IntN(5) {
	case 0:
		return c.readItem(known, least)
	case 1:
		return c.readResults(least)
	case 2:
		return c.get("/api/jobs", nil, least, &[]json.RawMessage{})
	default:
		return c.readList(written, least)
	}
}

// get reads and checks how far the answer is: as far as was asked for, and not less far than the same API has been.
func (c *readClient) get(path string, query url.Values, least uint64, v any) error {
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	text, header, err := c.load.do(c.from, http.MethodGet, path, "", least)
	if err != nil {
		return err
	}
	applied, err := strconv.ParseUint(header.Get("Kanade-Applied-Sequence"), 10, 64)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if applied < max(least, c.seen) {
		return fmt.Errorf("%s from %s is as of %d; asked for: %d, seen before: %d", path, c.from.name, applied, least, c.seen)
	}
	c.seen = applied
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("%s from %s is torn: %w: %s", path, c.from.name, err, text)
	}
	return nil
}

// readItem reads an exec, as of its own request; where nobody feeds the read model, only one that is in there.
func (c *readClient) readItem(known write, least uint64) error {
	if c.phase.unfed && known.sequence > c.seen {
		return nil
	}
	var got struct {
		Execution struct {
			ExecID   string `json:"exec_id"`
			Sequence uint64 `json:"sequence"`
		} `json:"execution"`
	}
	if err := c.get(client.Path("api", "executions", known.id), nil, max(least, known.sequence), &got); err != nil {
		return err
	}
	if got.Execution.ExecID != known.id || got.Execution.Sequence != known.sequence {
		return fmt.Errorf("exec %+v is answered as %+v", known, got)
	}
	return nil
}

// readResults reads some of the results, of which there are always as many.
func (c *readClient) readResults(least uint64) error {
	var rows []struct {
		Stdout string `json:"stdout"`
	}
	if err := c.get("/api/results", url.Values{"limit": {"20"}, "status": {"success"}}, least, &rows); err != nil {
		return err
	}
	if len(rows) != 20 || rows[19].Stdout == "" {
		return fmt.Errorf("20 results are answered as %+v", rows)
	}
	return nil
}

// readList reads the newest execs: everything that was written up to where the answer is has to be there, in its order.
func (c *readClient) readList(written []write, least uint64) error {
	const limit = 30
	var rows []struct {
		ExecID   string `json:"exec_id"`
		Sequence uint64 `json:"sequence"`
	}
	if err := c.get("/api/executions", url.Values{"limit": {strconv.Itoa(limit)}}, least, &rows); err != nil {
		return err
	}
	var want []write
	for _, w := range slices.Backward(written) {
		if w.sequence <= c.seen && len(want) < limit {
			want = append(want, w)
		}
	}
	var got []write
	for _, r := range rows {
		got = append(got, write{r.ExecID, r.Sequence})
	}
	newer := 0 // than what the client knew when it asked
	for newer < len(got) && (len(want) == 0 || got[newer].sequence > want[0].sequence) {
		newer++
	}
	if want = want[:min(len(want), limit-newer)]; !slices.Equal(want, got[newer:]) {
		return fmt.Errorf("execs as of %d: expected %v, got %v", c.seen, want, got)
	}
	return nil
}

// apiState is what an API says of itself at /readyz.
type apiState struct {
	ReadModel struct {
		AppliedSequence uint64  `json:"applied_sequence"`
		Lag             uint64  `json:"lag"`
		AgeSecs         float64 `json:"age_secs"`
	} `json:"read_model"`
}

func askState(ctx context.Context, p *process) (state apiState, status int, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.listen+"/readyz", nil)
	if err != nil {
		return state, 0, err
	}
	r.Close = true
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return state, 0, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && json.Unmarshal(text, &state) != nil {
		err = fmt.Errorf("%s: %s", answer.Status, text)
	}
	return state, answer.StatusCode, err
}

// saysItsAge asks an API whose files nobody feeds for its state.
func saysItsAge(ctx context.Context, p *process) error {
	state, status, err := askState(ctx, p)
	if err == nil && (status != http.StatusOK || state.ReadModel.Lag == 0 || state.ReadModel.AgeSecs <= 0) {
		err = fmt.Errorf("%d, %+v", status, state)
	}
	return err
}
