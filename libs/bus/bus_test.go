package bus_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/bus"
	"kanade/libs/bus/broker"
	"kanade/libs/bus/bustest"
)

func TestConnectRefusesWrongTokenAtOnce(t *testing.T) {
	br, err := broker.Start(broker.Config{
		StoreDir: t.TempDir(), Listen: "127.0.0.1:0", Token: bustest.Token, Logger: bustest.Logger(t),
	})
	require.NoError(t, err)
	defer br.Shutdown()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, err = bus.Connect(ctx, bus.Config{URL: br.URL(), Token: "wrong", Logger: bustest.Logger(t)})
	require.ErrorContains(t, err, "refuses the token")
	require.NoError(t, ctx.Err())

	b, err := bus.Connect(ctx, bus.Config{URL: br.URL(), Token: bustest.Token, Logger: bustest.Logger(t)})
	require.NoError(t, err)
	require.NoError(t, b.Ensure(ctx, bustest.Limits()))
	b.Close()
	b.Close()
}

func TestConnectTriesUntilItsContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		br := bustest.Broker(t)
		br.Shutdown()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := bus.Connect(ctx, bus.Config{InProcess: br, Token: bustest.Token, Logger: bustest.Logger(t)})
		require.ErrorIs(t, err, bus.ErrUnavailable)
		require.ErrorIs(t, err, context.DeadlineExceeded)

		go func() {
			time.Sleep(5 * time.Second)
			if err := br.Restart(); err != nil {
				t.Error(err)
			}
		}()
		bustest.Dial(t, br)
	})
}
