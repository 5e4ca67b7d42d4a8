package bus_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/stretchr/testify/require"

	"kanade/libs/bus"
	"kanade/libs/bus/bustest"
	"kanade/libs/events"
)

func TestStressRouterAndFollow(t *testing.T) {
	br := bustest.Broker(t)
	b := bustest.Connect(t, br)
	appendFacts(t, b, "pc", 200)
	var n atomic.Int64
	bustest.Stress(t, func(ctx context.Context) error {
		switch i := n.Add(1); i % 3 {
		case 0:
			return b.Follow(ctx, bus.FollowConfig{Stream: events.StreamLog}, func(context.Context, []bus.RawMsg) error { return nil })
		case 1:
			sub, err := b.PullSubscriber(bus.PullConfig{Stream: events.StreamLog, Durable: fmt.Sprint("pull", i%2), Workers: 3})
			if err != nil {
				return err
			}
			return route(ctx, b, sub)
		default:
			sub, err := b.PushSubscriber(bus.PushConfig{Stream: events.StreamLog, Durable: fmt.Sprint("push", i%2)})
			if err != nil {
				return err
			}
			return route(ctx, b, sub)
		}
	})
	requireDurables(t, b, 4)
}

func route(ctx context.Context, b *bus.Bus, sub message.Subscriber) error {
	r, err := b.NewRouter(bus.RouterConfig{})
	if err != nil {
		return err
	}
	r.Handle("work", sub, func(context.Context, bus.Stored) error { return nil })
	return r.Run(ctx)
}

func requireDurables(t *testing.T, b *bus.Bus, n int) {
	s, err := b.JetStream().Stream(t.Context(), events.StreamLog)
	require.NoError(t, err)
	require.Equal(t, n, s.CachedInfo().State.Consumers, "no follow has left a consumer")
}

func TestStressConnect(t *testing.T) {
	br := bustest.Broker(t)
	bustest.Connect(t, br)
	bustest.Stress(t, func(ctx context.Context) error {
		b, err := bus.Connect(ctx, bus.Config{InProcess: br, Token: bustest.Token, Logger: bustest.Logger(t)})
		if err != nil {
			return err
		}
		b.Close()
		return nil
	})
}
