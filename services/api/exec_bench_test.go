package api

import (
	"context"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"kanade/libs/bus"
	"kanade/libs/bus/broker"
	"kanade/libs/bus/bustest"
	"kanade/libs/events"
	"kanade/libs/readmodel"
)

const benchClients = 64

// kanadeRate is what kanade 0.43.45 accepted in a second from 64 clients on the machine of docs/performance.md, without the
// acknowledgement of any stream; x-kanade is against it.
const kanadeRate = 1210

// BenchmarkExecRate is how many exec requests a second clients get answered: POST /api/exec/{job_id} over TCP with 64
// clients, each answered after the log's acknowledgement, beside 64 raw publishers of a message of the same size in the
// same run against the same broker. p50-ms is half of the clients' waits. The ratio, of-ceiling, is what to watch; both
// sides share the machine with broker and clients.
func BenchmarkExecRate(b *testing.B) {
	br, err := broker.Start(broker.Config{StoreDir: b.TempDir(), Token: bustest.Token, Listen: "127.0.0.1:0", Logger: bustest.Logger(b)})
	require.NoError(b, err)
	b.Cleanup(br.Shutdown)
	connect := func(name string) *bus.Bus {
		c, err := bus.Connect(b.Context(), bus.Config{URL: br.URL(), Token: bustest.Token, Name: name, Logger: bustest.Logger(b)})
		require.NoError(b, err)
		b.Cleanup(c.Close)
		return c
	}
	raw := connect("raw")
	require.NoError(b, raw.Ensure(b.Context(), bustest.Limits()))
	s := &system{t: b, broker: br, bus: raw, dir: b.TempDir()}
	model, err := readmodel.OpenWriter(b.Context(), s.dir) // there to be asked; nobody feeds it while the broker is measured
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, model.Close()) })
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	ctx, stop := context.WithCancel(context.Background())
	ended, listening := make(chan error, 1), make(chan struct{})
	go func() {
		ended <- Run(ctx, Config{AuthToken: testToken, ReadModelDir: s.dir}, Deps{
			Bus: connect("api"), Listener: listener, Logger: bustest.Logger(b), Listening: func(net.Addr) { close(listening) },
		})
	}()
	<-listening
	url := "http://" + listener.Addr().String()
	transport := &http.Transport{MaxIdleConnsPerHost: benchClients}
	s.client = &http.Client{Transport: transport}
	b.Cleanup(func() { transport.CloseIdleConnections(); stop(); require.NoError(b, <-ended) })
	post := func(path, contentType, body string) int {
		r, err := http.NewRequest(http.MethodPost, url+path, strings.NewReader(body))
		require.NoError(b, err)
		r.Header.Set("Authorization", "Bearer "+testToken)
		r.Header.Set("Content-Type", contentType)
		a, err := s.client.Do(r)
		if err != nil {
			b.Error(err)
			return 0
		}
		_, _ = io.Copy(io.Discard, a.Body) // or the connection is not used again
		a.Body.Close()
		return a.StatusCode
	}
	require.Equal(b, http.StatusOK, post("/api/jobs", "application/yaml", helloYAML))
	exec := func() {
		if status := post("/api/exec/hello", "application/json", `{"target":{"all":true}}`); status != http.StatusOK {
			b.Errorf("status %d", status)
		}
	}
	exec()
	size := lastMessage(b, raw)
	publish := func() {
		id := uuid.NewString()
		m := &nats.Msg{Subject: events.FactSubject(events.AggregateExec, id, "requested"), Header: nats.Header{}, Data: size.Data}
		for name, values := range size.Header {
			if !strings.HasPrefix(name, "Nats-Expected-") {
				m.Header[name] = values
			}
		}
		m.Header[events.HeaderMsgID] = []string{id}
		if _, err := raw.JetStream().PublishMsg(b.Context(), m); err != nil {
			b.Error(err)
		}
	}
	rate(200, exec)
	rate(200, publish)
	// In turns, so that what the machine does meanwhile falls on both.
	var over, ceiling time.Duration
	var waits []time.Duration
	const turns = 4
	n := max(b.N/turns, benchClients)
	b.ResetTimer()
	for range turns {
		took, each := rate(n, exec)
		over, waits = over+took, append(waits, each...)
		took, _ = rate(n, publish)
		ceiling += took
	}
	slices.Sort(waits)
	perSecond := func(d time.Duration) float64 { return float64(turns*n) / d.Seconds() }
	b.ReportMetric(perSecond(over), "execs/s")
	b.ReportMetric(float64(waits[len(waits)/2])/float64(time.Millisecond), "p50-ms")
	b.ReportMetric(perSecond(over)/kanadeRate, "x-kanade")
	b.ReportMetric(perSecond(ceiling), "raw/s")
	b.ReportMetric(perSecond(over)/perSecond(ceiling), "of-ceiling")
	b.ReportMetric(0, "ns/op")
}

// rate does n things with all clients and returns how long it took, all in all and each.
func rate(n int, do func()) (took time.Duration, each []time.Duration) {
	began := time.Now()
	var next atomic.Int64
	each = make([]time.Duration, n)
	var all sync.WaitGroup
	for range benchClients {
		all.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				asked := time.Now()
				do()
				each[i] = time.Since(asked)
			}
		})
	}
	all.Wait()
	return time.Since(began), each
}

func lastMessage(b *testing.B, c *bus.Bus) bus.RawMsg {
	b.Helper()
	m, ok, err := c.LastRaw(b.Context(), events.StreamLog, events.FactFilter(events.AggregateExec, "requested"))
	require.NoError(b, err)
	require.True(b, ok)
	return m
}
