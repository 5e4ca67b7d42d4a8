package bus_test

import (
	"context"
	"testing"

	"github.com/ThreeDotsLabs/watermill/message"

	"kanade/libs/bus"
	"kanade/libs/bus/bustest"
	"kanade/libs/events"
)

func TestStressPull(t *testing.T) {
	stressRouter(t, func(b *bus.Bus) (message.Subscriber, error) {
		return b.PullSubscriber(bus.PullConfig{Stream: events.StreamLog, Durable: "work", Workers: 3})
	})
}

func TestStressPush(t *testing.T) {
	stressRouter(t, func(b *bus.Bus) (message.Subscriber, error) {
		return b.PushSubscriber(bus.PushConfig{Stream: events.StreamLog, Durable: "work"})
	})
}

func stressRouter(t *testing.T, subscriber func(*bus.Bus) (message.Subscriber, error)) {
	b := bustest.Connect(t, bustest.Broker(t))
	appendFacts(t, b, "pc", 500)
	bustest.Stress(t, func(ctx context.Context) error {
		r, err := b.NewRouter(bus.RouterConfig{})
		if err != nil {
			return err
		}
		sub, err := subscriber(b)
		if err != nil {
			return err
		}
		r.Handle("work", sub, func(context.Context, bus.Stored) error { return nil })
		return r.Run(ctx)
	})
}

func TestStressFollow(t *testing.T) {
	b := bustest.Connect(t, bustest.Broker(t))
	appendFacts(t, b, "pc", 200)
	bustest.Stress(t, func(ctx context.Context) error {
		return b.Follow(ctx, bus.FollowConfig{Stream: events.StreamLog}, func(context.Context, []bus.RawMsg) error { return nil })
	})
	requireNoConsumers(t, b, events.StreamLog)
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
