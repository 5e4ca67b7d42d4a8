//go:build unix

package systemtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"path/filepath"
	"sync"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/cmd/kanade/internal/client"
	"kanade/libs/events"
)

// bigOutput is what the job "big" prints beside its first line, in bytes: more than an event carries.
const bigOutput = 48 << 10

// killJobs are the jobs of the load by their ids: the end of their scripts. Each first writes a line to the witness.
func killJobs() map[string]string {
	return map[string]string{
		"quick": "",
		"short": "sleep 0.03",
		"long":  "sleep 0.3",
		"big":   fmt.Sprintf("head -c %d /dev/zero | tr '\\0' x; sleep 0.02", bigOutput),
	}
}

// killTargets are the plans of the load and the endpoints that they mean.
func killTargets() []killTarget {
	both := []string{"pc-1", "pc-2"}
	return []killTarget{
		{`{"target":{"all":true}}`, both},
		{`{"target":{"groups":["both"]}}`, both},
		{`{"target":{"pcs":["pc-1","pc-2"]}}`, both},
		{`{"target":{"pcs":["pc-1"]}}`, both[:1]},
		{`{"target":{"pcs":["pc-2"]}}`, both[1:]},
	}
}

type killTarget struct {
	plan string
	pcs  []string
}

// accepted is an exec that the API has accepted.
type accepted struct {
	id, job string
	pcs     []string
}

// witness is the file to which every script appends a line when it starts.
func (s *installation) witness() string { return filepath.Join(s.dir, "witness") }

// prepare waits until everything is there, registers the jobs and puts both endpoints into a group.
func (s *installation) prepare() {
	s.until(time.Minute, "API is ready", func() error { return s.get("/readyz", nil, nil) })
	for id, script := range killJobs() {
		manifest := fmt.Sprintf("id: %s\nversion: '1'\nexecute:\n  shell: sh\n  timeout: 1m\n  script: |\n"+
			"    echo \"$KANADE_EXEC_ID $KANADE_PC_ID\" >>'%s'\n    echo \"$KANADE_EXEC_ID $KANADE_PC_ID\"\n    %s\n", id, s.witness(), script)
		_, err := s.client.Do(s.ctx, client.Request{
			Method: http.MethodPost, Path: "/api/jobs", Body: []byte(manifest), ContentType: client.YAML,
		})
		require.NoError(s.t, err)
	}
	for _, p := range s.of(kindAgent) {
		_, err := s.client.Do(s.ctx, client.Request{
			Method: http.MethodPost, Path: client.Path("api", "agents", p.name, "groups"), Body: []byte(`{"group":"both"}`), ContentType: client.JSON,
		})
		require.NoError(s.t, err)
	}
	b := s.connect()
	defer b.Close()
	for _, p := range s.of(kindAgent) {
		s.until(time.Minute, p.name+" is registered", func() error {
			_, ok, err := b.Last(s.ctx, events.StreamLog, events.FactSubject(events.AggregateAgent, p.name, "seen"))
			if err == nil && !ok {
				err = errors.New("the log does not know it")
			}
			return err
		})
	}
}

// get decodes an answer into v, unless that is nil.
func (s *installation) get(path string, query url.Values, v any) error {
	a, err := s.client.Do(s.ctx, client.Request{Method: http.MethodGet, Path: path, Query: query})
	if err != nil || v == nil {
		return err
	}
	return json.Unmarshal(a.Body, v)
}

// load asks for execs all the time.
type load struct {
	on   *installation
	stop chan struct{}
	work sync.WaitGroup

	mu       sync.Mutex
	accepted []accepted
	repeated int // requests that had to be, or were, sent again
}

// posters is how many ask at once.
const posters = 3

func (s *installation) startLoad(seed uint64) *load {
	l := &load{on: s, stop: make(chan struct{})}
	for n := range uint64(posters) {
		l.work.Go(func() {
			if err := l.run(fmt.Sprintf("%d-%d", seed, n), rand.New(rand.NewPCG(seed, n))); err != nil {
				s.broken(err)
			}
		})
	}
	return l
}

// end lets the last requests be accepted and gives all execs.
func (l *load) end() []accepted {
	close(l.stop)
	l.work.Wait()
	if l.on.ctx.Err() != nil {
		l.on.t.Fatal(context.Cause(l.on.ctx))
	}
	return l.accepted
}

func (l *load) run(name string, r *rand.Rand) error {
	jobs, targets := []string{"quick", "short", "short", "long", "big"}, killTargets()
	for n := 0; ; n++ {
		job, target := jobs[r.IntN(len(jobs))], targets[r.IntN(len(targets))]
		key := fmt.Sprintf("%s-%d", name, n)
		var err error
		if n%20 == 10 && n < 600 {
			target, err = l.newGroup("g-"+key, target.pcs)
		}
		var id string
		if err == nil {
			id, err = l.post(job, target.plan, key)
		}
		if err == nil && r.IntN(10) == 0 {
			err = l.postAgain(job, target.plan, key, id)
		}
		if err != nil {
			return err
		}
		l.mu.Lock()
		l.accepted = append(l.accepted, accepted{id, job, target.pcs})
		l.mu.Unlock()
		select {
		case <-l.stop:
			return nil
		case <-l.on.ctx.Done():
			return nil
		case <-time.After(50*time.Millisecond + time.Duration(r.IntN(300))*time.Millisecond):
		}
	}
}

// postAgain repeats a request that was accepted: it must be answered by the same exec.
func (l *load) postAgain(job, plan, key, id string) error {
	again, err := l.post(job, plan, key)
	if err == nil && again != id {
		err = fmt.Errorf("request %s made exec %s and exec %s", key, id, again)
	}
	l.mu.Lock()
	l.repeated++
	l.mu.Unlock()
	return err
}

// newGroup puts endpoints into a group that nobody has heard of: what is asked of it from then on is asked of them.
func (l *load) newGroup(group string, pcs []string) (killTarget, error) {
	for _, pc := range pcs {
		_, err := l.request(client.Path("api", "agents", pc, "groups"), fmt.Sprintf(`{"group":%q}`, group), group+"-"+pc)
		if err != nil {
			return killTarget{}, err
		}
	}
	return killTarget{fmt.Sprintf(`{"target":{"groups":[%q]}}`, group), pcs}, nil
}

func (l *load) post(job, plan, key string) (string, error) {
	body, err := l.request(client.Path("api", "exec", job), plan, key)
	if err != nil {
		return "", err
	}
	var requested client.Requested
	err = json.Unmarshal(body, &requested)
	return requested.ExecID, err
}

// request asks until the API grants it: as any careful client it repeats, with the same key, what was not answered or
// answered with 503.
func (l *load) request(path, body, key string) ([]byte, error) {
	const limit = 2 * time.Minute
	deadline := time.Now().Add(limit)
	for {
		a, err := l.on.client.Do(l.on.ctx, client.Request{
			Method: http.MethodPost, Path: path, Body: []byte(body), ContentType: client.JSON, IdempotencyKey: key,
		})
		if err == nil {
			return a.Body, nil
		}
		var unreachable *client.Unreachable
		var refused *client.Refused
		if !errors.As(err, &unreachable) && !(errors.As(err, &refused) && refused.Status == http.StatusServiceUnavailable) {
			return nil, fmt.Errorf("request %s: %w", key, err)
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("request %s is not granted within %s: %w", key, limit, err)
		}
		l.mu.Lock()
		l.repeated++
		l.mu.Unlock()
		select {
		case <-l.on.ctx.Done():
			return nil, context.Cause(l.on.ctx)
		case <-time.After(30 * time.Millisecond):
		}
	}
}
