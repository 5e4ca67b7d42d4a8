package api

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"kanade/libs/events"
)

// BenchmarkExplain is what an exec with 100 000 endpoints costs to look at, as a client sees it, in milliseconds: why one
// endpoint did not run (explain-ms), the execution with all of its results (detail-ms), its line in the list (list-ms), its
// waves (waves-ms), and its failures grouped (failures-ms). Half of the endpoints have answered, a tenth of those failed.
func BenchmarkExplain(b *testing.B) {
	const endpoints = 100_000
	s := newSystem(b, parts{})
	exec := benchRollout(b, s, endpoints)
	middle := fmt.Sprintf("pc-%06d", endpoints/2+1) // of the second wave, which waits
	paths := []struct{ unit, path string }{
		{"explain-ms", "/api/executions/" + exec + "/targets/" + middle + "/explain"},
		{"detail-ms", "/api/executions/" + exec},
		{"list-ms", "/api/executions"},
		{"waves-ms", "/api/executions/" + exec + "/waves"},
		{"failures-ms", "/api/executions/" + exec + "/failures"},
	}
	took := make([]time.Duration, len(paths))
	for i := range paths {
		require.Equal(b, http.StatusOK, s.read(paths[i].path).status)
	}
	for b.Loop() {
		for i := range paths {
			began := time.Now()
			if a := s.read(paths[i].path); a.status != http.StatusOK {
				b.Fatal(a.text())
			}
			took[i] += time.Since(began)
		}
	}
	for i := range paths {
		b.ReportMetric(took[i].Seconds()*1000/float64(b.N), paths[i].unit)
	}
	b.ReportMetric(0, "ns/op")
}

// benchRollout stores an exec of two waves of half of the endpoints each, of which the first one has answered.
func benchRollout(b *testing.B, s *system, endpoints int) string {
	s.job()
	exec := s.exec("hello", `{"target":{"pcs":["pc-000000"]}}`).ExecID
	at := time.Now().UTC()
	plan := events.ExecPlanned{
		ExecID: exec, DeadlineAt: at.Add(time.Hour), ExpiresAt: at.Add(time.Hour), Waves: []events.PlannedWave{{DueAt: at}, {DueAt: at, Pause: true}},
	}
	var runs []*nats.Msg
	for i := range endpoints {
		pc := fmt.Sprintf("pc-%06d", i)
		w := &plan.Waves[i%2]
		w.Expected = append(w.Expected, pc)
		if i%2 > 0 {
			continue
		}
		request := events.DeriveID(exec, "request", pc)
		code := 0
		f := events.RunFinished{
			Run:       events.Run{PCID: pc, ExecID: exec, RequestID: request, ResultID: events.ResultID(request, pc), JobID: "hello", Version: "1.0.0"},
			StartedAt: at, FinishedAt: at, State: events.StateSucceeded, ExitCode: &code, Stdout: events.Output{Text: "hello\n", Bytes: 6},
		}
		if i%20 == 0 {
			code, f.State, f.Stderr = i%60, events.StateFailed, events.Output{Text: "no space left on device\n", Bytes: 24}
		}
		e, err := events.New(f, events.Meta{ID: f.ResultID, Source: "/kanade/test", Time: at, Actor: "agent:test"})
		require.NoError(b, err)
		h, body, err := e.Encode()
		require.NoError(b, err)
		runs = append(runs, &nats.Msg{Subject: e.NATSSubject(), Header: nats.Header(h), Data: body})
	}
	s.append(plan)
	s.append(events.WaveReleased{ExecID: exec})
	s.append(events.WaveDispatched{ExecID: exec, Commands: endpoints / 2})
	require.NoError(b, s.bus.PublishAll(b.Context(), runs, 0))
	s.saw(s.lastSeq())
	for s.read("/api/executions/"+exec+"/waves").status != http.StatusOK { // the read model needs longer than a read waits
	}
	return exec
}
