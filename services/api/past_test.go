package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/bus"
	"kanade/libs/bus/bustest"
	"kanade/libs/events"
	"kanade/libs/readmodel"
)

// builder does what projectors do about the past, until the test ends; it counts what it was asked for.
type builder struct {
	s     *system
	mu    sync.Mutex
	asked []uint64
}

func (s *system) buildPasts() *builder {
	s.t.Helper()
	b := &builder{s: s}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		filter := events.FactSubject(events.AggregateConfig, events.ReadModelID, "past-requested")
		err := s.bus.Follow(ctx, bus.FollowConfig{Stream: events.StreamLog, Filters: []string{filter}, Name: "past"}, func(ctx context.Context, batch []bus.RawMsg) error {
			for _, m := range batch {
				stored, err := m.Stored()
				if err != nil {
					return err
				}
				p, err := stored.Payload()
				if err != nil {
					return err
				}
				sequence := p.(events.ReadModelPastRequested).Sequence
				b.mu.Lock()
				b.asked = append(b.asked, sequence)
				b.mu.Unlock()
				if err := b.build(context.WithoutCancel(ctx), sequence, m.Time); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			s.t.Errorf("build pasts: %v", err)
		}
	})
	s.t.Cleanup(func() { stop(); running.Wait() })
	return b
}

func (b *builder) build(ctx context.Context, sequence uint64, present time.Time) error {
	past, err := readmodel.ClaimPast(ctx, b.s.dir, events.Retain{})
	if err != nil {
		return err
	}
	defer past.Close()
	w, err := past.Build(ctx, past.Room())
	if err != nil {
		return err
	}
	for next := uint64(1); next <= sequence; {
		m, ok, err := b.s.bus.Next(ctx, events.StreamLog, next)
		if err != nil || !ok || m.Seq > sequence {
			break
		}
		if _, err := w.Apply(ctx, events.StreamLog, []readmodel.Message{readmodel.Message(m)}); err != nil {
			return err
		}
		next = m.Seq + 1
	}
	for more := true; more; {
		if more, err = w.WriteWords(ctx); err != nil {
			return err
		}
	}
	if err := past.Remove(sequence); err != nil {
		return err
	}
	return past.Offer(ctx, w, sequence, present)
}

func (b *builder) requests() []uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]uint64(nil), b.asked...)
}

func at(path string, moment any) string {
	separator := "?"
	if strings.Contains(path, "?") {
		separator = "&"
	}
	return path + separator + "as_of=" + url.QueryEscape(fmt.Sprint(moment))
}

// Every read answers as it would have answered at a past moment.
func TestAsOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, parts{})
		s.endpoint("pc-01")
		s.job()
		e := s.exec("hello", `{"target":{"pcs":["pc-01"]}}`)
		s.write(http.MethodPost, "/api/schedules", `{"id":"nightly","job_id":"hello","when":{"cron":"0 4 * * *"},"target":{"all":true},"tz":"UTC"}`)
		s.write(http.MethodPut, "/api/agents/pc-01/groups", `{"groups":["a"]}`)
		s.plan(e.ExecID, "pc-01")
		run, code := runOf(e, "pc-01"), 3
		s.run(run, events.StateFailed, &code, events.Output{Text: "the disk is full", Bytes: 16})
		s.write(http.MethodPut, "/api/freeze", `{"from":"2000-01-01","tz":"utc"}`)
		s.write(http.MethodPost, "/api/scripts/hello/revoke", `{}`)
		paths := []string{
			"/api/agents/pc-01/groups", "/api/groups", "/api/jobs", "/api/jobs/hello", "/api/jobs/hello/yaml", "/api/scripts/status", "/api/freeze",
			"/api/executions", "/api/executions/" + e.ExecID, "/api/executions/" + e.ExecID + "/targets", "/api/executions/" + e.ExecID + "/waves",
			"/api/executions/" + e.ExecID + "/failures", "/api/results", "/api/results?q=disk", "/api/results?format=csv", "/api/results?status=failure", "/api/results/groups?job_id=hello",
			"/api/results/" + run.ResultID, "/api/results/" + run.ResultID + "/output/stdout", "/api/schedules", "/api/schedules/nightly",
			"/api/schedules/nightly/yaml", "/api/schedules/nightly/ticks", "/api/schedules/nightly/status", "/api/schedules/nightly/coverage",
			"/api/calendars", "/api/audit", "/api/audit?action=exec", "/api/audit?format=csv", "/api/executions?format=ndjson",
		}
		then, before := s.lastSeq(), map[string]answer{}
		for _, path := range paths {
			before[path] = s.read(path)
			require.Equal(t, http.StatusOK, before[path].status, "%s: %s", path, before[path].body)
			require.Equal(t, strconv.FormatUint(then, 10), before[path].header.Get("Kanade-Applied-Sequence"))
		}
		explained := s.read("/api/executions/" + e.ExecID + "/targets/pc-01/explain").text()

		time.Sleep(48 * time.Hour) // nothing is as it was
		b := s.buildPasts()
		s.append(events.ExecKilled{ExecID: e.ExecID, Reason: "late"})
		s.append(events.ScheduleTicked{ID: "nightly", Outcome: events.TickSkipped, Reason: events.TickReasonFrozen, From: time.Now(), To: time.Now(), Count: 1})
		s.write(http.MethodPut, "/api/agents/pc-01/groups", `{"groups":["b"]}`)
		s.write(http.MethodDelete, "/api/schedules/nightly", "")
		s.write(http.MethodDelete, "/api/jobs/hello", "")
		s.write(http.MethodDelete, "/api/freeze", "")
		s.write(http.MethodPost, "/api/scripts/hello/unrevoke", `{}`)
		s.append(events.ExecExpired{ExecID: e.ExecID, Outcome: events.OutcomeKilled})
		again := runOf(e, "pc-02")
		s.run(again, events.StateFailed, &code, events.Output{Text: "the disk is full too", Bytes: 20})

		for _, path := range paths {
			past := s.do(http.MethodGet, at(path, then), "")
			require.Equal(t, before[path].status, past.status, "%s: %s", path, past.body)
			require.Equal(t, before[path].text(), past.text(), path)
			for _, header := range []string{"Content-Type", "ETag", "X-Total-Count", "Kanade-Applied-Sequence", "Kanade-Applied-At", "Kanade-Searched-Sequence"} {
				require.Equal(t, before[path].header.Get(header), past.header.Get(header), "%s %s", path, header)
			}
			require.NotEqual(t, strconv.FormatUint(then, 10), s.read(path).header.Get("Kanade-Applied-Sequence"))
		}
		require.Equal(t, []uint64{then}, b.requests(), "asked for once")
		require.Equal(t, explained, s.do(http.MethodGet, at("/api/executions/"+e.ExecID+"/targets/pc-01/explain", then), "").text())

		var agents []map[string]any
		s.do(http.MethodGet, at("/api/agents", then), "").into(t, &agents)
		require.Len(t, agents, 1)
		require.Equal(t, false, agents[0]["alive"], "who was there then is not known")
		require.Equal(t, []any{"a"}, agents[0]["groups"])
		var due []map[string]any
		s.do(http.MethodGet, at("/api/schedules/nightly/preview?count=1", then), "").into(t, &due)
		require.Equal(t, "2000-01-01T04:00:00Z", due[0]["at"], "as of then, not of now")

		saved, _, err := s.bus.LastRaw(context.Background(), events.StreamLog, "events.job.hello.saved")
		require.NoError(t, err)
		require.Equal(t, http.StatusOK, s.do(http.MethodGet, at("/api/jobs/hello", saved.Seq), "").status)
		require.Equal(t, http.StatusNotFound, s.do(http.MethodGet, at("/api/jobs/hello", saved.Seq-1), "").status)
	})
}

// A time is the last fact that had been stored then; pages stay in their moment.
func TestAsOfTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, parts{})
		b := s.buildPasts()
		s.job()
		time.Sleep(36 * time.Hour) // 2000-01-02T12:00:00Z
		first := s.exec("hello", `{"target":{"all":true}}`).Sequence
		time.Sleep(12 * time.Hour)
		second := s.exec("hello", `{"target":{"all":true}}`).Sequence // at midnight
		time.Sleep(time.Hour)
		third := s.exec("hello", `{"target":{"all":true}}`).Sequence
		m, _, err := s.bus.Get(context.Background(), events.StreamLog, third)
		require.NoError(t, err)
		time.Sleep(time.Minute) // so that what is asked for is not at the same moment
		for moment, sequence := range map[string]uint64{
			"2000-01-02": 1, "2000-01-02Z": 1, "2000-01-02T11:59:59Z": 1, "2000-01-02T12:30:00Z": first, "2000-01-02T12:30:00": first,
			"2000-01-02 12:30:00.5Z": first, "2000-01-02T14:30:00+02:00": first, "2000-01-02T23:59:59Z": first, "2000-01-03": second,
			"2000-01-03T00:30:00Z": second, "2000-01-03+01:00": first, m.Time.Format(time.RFC3339Nano): third, m.Time.Add(-1).Format(time.RFC3339Nano): second,
		} {
			a := s.do(http.MethodGet, at("/api/executions", moment), "")
			require.Equal(t, http.StatusOK, a.status, "%s: %s", moment, a.body)
			require.Equal(t, strconv.FormatUint(sequence, 10), a.header.Get("Kanade-Applied-Sequence"), moment)
		}
		require.LessOrEqual(t, len(b.requests()), 4, "one for each sequence")

		page := s.do(http.MethodGet, at("/api/executions?limit=1", "2000-01-03T00:30:00Z"), "")
		link := page.header.Get("Link")
		require.Contains(t, link, fmt.Sprintf("as_of=%d", second))
		next := s.do(http.MethodGet, strings.TrimPrefix(link[:strings.Index(link, ">")], "<"), "")
		require.Equal(t, http.StatusOK, next.status, "%s", next.body)
		require.Equal(t, strconv.FormatUint(second, 10), next.header.Get("Kanade-Applied-Sequence"))
		require.Empty(t, next.header.Get("Link"))
	})
}

// What is no past, or not known any more, or can't be asked, is refused with what may be asked.
func TestAsOfRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSystem(t, parts{})
		refuse := func(method, path string, moment any, headers ...string) string {
			t.Helper()
			a := s.do(method, at(path, moment), "", append(headers, "Accept", "application/json")...)
			require.Equal(t, http.StatusBadRequest, a.status, "%s %s: %s", method, path, a.body)
			require.Equal(t, "application/problem+json", a.header.Get("Content-Type"))
			var p struct {
				Detail string `json:"detail"`
			}
			require.NoError(t, json.Unmarshal(a.body, &p))
			require.Contains(t, p.Detail, "as_of: ")
			return p.Detail
		}
		require.Contains(t, refuse(http.MethodGet, "/api/jobs", 1), "the log is empty")
		s.job()
		time.Sleep(time.Hour)
		e := s.exec("hello", `{"target":{"all":true}}`)
		const ranges = "expected a sequence of the log from 1 to 2, or a time from 2000-01-01T00:00:00"
		for _, moment := range []string{
			"0", "3", "99999999999999999999999999", "-1", "1.5", "", "yesterday", "2000-01-32", "2000-1-1", "1999-12-31", "2000-01-01T02:00:00Z", "2999-01-01", "1, 2",
		} {
			require.Contains(t, refuse(http.MethodGet, "/api/jobs", moment), ranges, moment)
		}
		require.Contains(t, refuse(http.MethodGet, at("/api/jobs", 1), 1), ranges, "twice")
		require.Contains(t, refuse(http.MethodGet, "/api/jobs", 1, "Kanade-Min-Sequence", "2"), "has not seen")

		const no = "only what is read from the read model"
		for method, paths := range map[string][]string{
			http.MethodGet: {
				"/api/events/stream", "/api/version", "/api/dead", "/api/dead/1", "/api/read-model", "/api/script-objects", "/api/script-objects/a/1",
			},
			http.MethodPost: {
				"/api/jobs", "/api/exec/hello", "/api/exec/hello?dry_run=true", "/api/run", "/api/schedules", "/api/read-model/verify", "/api/executions/" + e.ExecID + "/kill",
				"/api/executions/" + e.ExecID + "/retry", "/api/scripts/hello/revoke", "/api/dead/1/retry",
			},
			http.MethodPut:    {"/api/freeze", "/api/agents/pc-01/groups"},
			http.MethodDelete: {"/api/jobs/hello", "/api/freeze"},
		} {
			for _, path := range paths {
				require.Contains(t, refuse(method, path, 1), no, "%s %s", method, path)
			}
		}
		require.EqualValues(t, 2, s.lastSeq(), "nothing was written")

		began := time.Now() // nobody builds it
		a := s.do(http.MethodGet, at("/api/jobs", 1), "")
		require.Equal(t, http.StatusServiceUnavailable, a.status)
		require.NotEmpty(t, a.header.Get("Retry-After"))
		require.Contains(t, a.text(), "as of sequence 1 is not built yet")
		require.InDelta(t, 10, time.Since(began).Seconds(), 1)
		var clients sync.WaitGroup
		for range 5 {
			clients.Go(func() { s.do(http.MethodGet, at("/api/jobs", 1), "") })
		}
		clients.Wait()
		require.EqualValues(t, 3, s.lastSeq(), "all of them are one fact")
		require.Equal(t, events.ReadModelPastRequested{ID: events.ReadModelID, Sequence: 1}, s.fact(3))
		b := s.buildPasts()
		require.Equal(t, http.StatusOK, s.do(http.MethodGet, at("/api/jobs", 1), "").status)

		// What is not of this log, or was built too long ago, is not answered from.
		files, err := filepath.Glob(filepath.Join(s.dir, "past", "past-*-1.db"))
		require.NoError(t, err)
		require.Len(t, files, 1)
		time.Sleep(2 * time.Minute)
		long := time.Now().Add(-25 * time.Hour)
		require.NoError(t, os.Chtimes(files[0], long, long))
		require.Equal(t, http.StatusOK, s.do(http.MethodGet, at("/api/jobs", 1), "").status)
		require.Equal(t, []uint64{1, 1}, b.requests())

		s.limits = bustest.Limits() // beyond the history the log does not tell any more
		s.limits.History = 24 * time.Hour
		s.client = s.serve(Deps{Bus: s.bus})
		time.Sleep(25 * time.Hour)
		s.write(http.MethodPost, "/api/jobs", strings.ReplaceAll(helloYAML, "hello", "bye"), "Content-Type", "application/yaml")
		require.Contains(t, refuse(http.MethodGet, "/api/jobs", 1), "expected a sequence of the log from 4 to 5, or a time from 2000-01-01T02:")
		refuse(http.MethodGet, "/api/jobs", 3)
		refuse(http.MethodGet, "/api/jobs", "2000-01-01T01:30:00Z")
		require.Equal(t, http.StatusOK, s.do(http.MethodGet, at("/api/jobs", 4), "").status)
		require.Equal(t, http.StatusOK, s.do(http.MethodGet, at("/api/jobs", "2000-01-01T12:00:00Z"), "").status)
	})
}
