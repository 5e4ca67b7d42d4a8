package bus_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"kanade/libs/bus"
	"kanade/libs/bus/broker"
	"kanade/libs/bus/bustest"
	"kanade/libs/events"
)

// What came due during an outage is handled within a second of its end, however long it was and however often something
// was tried in vain.
func TestLongOutageDelaysNothing(t *testing.T) {
	for _, down := range []time.Duration{3 * time.Second, 47 * time.Second, 40 * time.Minute, 7 * time.Hour} {
		t.Run(down.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				br := bustest.Broker(t)
				b := bustest.Connect(t, br)
				var got fired
				defer startTimers(t, b, func(_ context.Context, timer bus.Timer) error { got.add(timer); return nil })()
				due := time.Now().Add(time.Minute + down/2)
				for i := range 5 {
					require.NoError(t, b.SetTimer(t.Context(), tick(fmt.Sprint(i), due)))
				}
				pause(time.Minute)
				bustest.Restart(t, br, down)
				pause(time.Second)
				require.Len(t, got.all, 5)
			})
		})
	}
}

// What was asked over a connection that is lost is never answered: the request fails then, however long its context lasts.
func TestRequestEndsWithItsConnection(t *testing.T) {
	for name, request := range map[string]func(ctx context.Context, b *bus.Bus) error{
		"put object": func(ctx context.Context, b *bus.Bus) error {
			return b.PutObject(ctx, events.StoreScripts, "a/1", strings.NewReader("text"))
		},
		"get object": func(ctx context.Context, b *bus.Bus) error {
			_, err := b.GetObject(ctx, events.StoreScripts, "a/1", 1000)
			return err
		},
		"append": func(ctx context.Context, b *bus.Bus) error {
			_, err := b.Append(ctx, fact(t, "e1", "pc-1"), bus.Any)
			return err
		},
		"read": func(ctx context.Context, b *bus.Bus) error {
			_, err := b.LastSeq(ctx, events.StreamLog)
			return err
		},
		"publish": func(ctx context.Context, b *bus.Bus) error {
			return b.PublishAll(ctx, []*nats.Msg{{Subject: "$O." + events.StoreScripts + ".C.x"}}, 1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				br := bustest.Broker(t)
				bustest.Connect(t, br)
				line := &line{broker: br}
				b, err := bus.Connect(t.Context(), bus.Config{InProcess: line, Token: br.Token(), Logger: bustest.Logger(t)})
				require.NoError(t, err)
				defer b.Close()
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				line.mute.Store(true)
				begin := time.Now()
				go func() {
					pause(2 * time.Second)
					line.cut()
				}()
				require.ErrorIs(t, request(ctx, b), bus.ErrUnavailable)
				require.WithinRange(t, time.Now(), begin.Add(2*time.Second), begin.Add(3*time.Second))
			})
		})
	}
}

// line is a way to the broker that loses what is written while it is mute.
type line struct {
	broker *broker.Broker
	mute   atomic.Bool
	mu     sync.Mutex
	last   net.Conn
}

func (l *line) InProcessConn() (net.Conn, error) {
	c, err := l.broker.InProcessConn()
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = c
	return mutable{c, l}, nil
}

// cut ends the connection; the next one is sound.
func (l *line) cut() {
	l.mute.Store(false)
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = l.last.Close()
}

type mutable struct {
	net.Conn
	line *line
}

func (m mutable) Write(p []byte) (int, error) {
	if m.line.mute.Load() {
		return len(p), nil
	}
	return m.Conn.Write(p)
}

// Whoever asks for the broker's clock while somebody else waits for its answer waits no longer than his context lasts.
func TestNowWhileAnotherAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		br := bustest.Broker(t)
		b := bustest.Dial(t, br)
		br.Shutdown()
		pause(time.Second)
		asks := func(patience time.Duration) <-chan time.Duration {
			took := make(chan time.Duration, 1)
			go func() {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				started := time.Now()
				_, err := b.Now(ctx)
				assert.ErrorIs(t, err, bus.ErrUnavailable)
				took <- time.Since(started)
			}()
			return took
		}
		first := asks(4 * time.Second)
		pause(time.Millisecond)
		require.Equal(t, time.Second, <-asks(time.Second))
		require.Equal(t, 4*time.Second, <-first)
	})
}
