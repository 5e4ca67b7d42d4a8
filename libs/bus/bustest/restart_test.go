package bustest_test

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"kanade/libs/bus/bustest"
	"kanade/libs/events"
)

// Whoever asks for a connection while the broker starts or stops is answered at once: one who waited for a lock would
// hold up the bubble's time, and with it the broker that waits for a while.
func TestBrokerAnswersWhileItRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		br := bustest.Broker(t)
		b := bustest.Connect(t, br)
		for i := range 20 { // each is a moment's wait for its file when the broker stops
			_, err := b.JetStream().CreateConsumer(t.Context(), events.StreamLog, jetstream.ConsumerConfig{Durable: fmt.Sprint(i)})
			require.NoError(t, err)
		}
		done := make(chan struct{})
		var clients sync.WaitGroup
		for range 8 {
			clients.Go(func() {
				for {
					if c, err := br.InProcessConn(); err == nil {
						_ = c.Close()
					}
					select {
					case <-done:
						return
					case <-time.After(time.Millisecond):
					}
				}
			})
		}
		for range 20 {
			br.Shutdown()
			time.Sleep(10 * time.Millisecond)
			require.NoError(t, br.Restart())
		}
		close(done)
		clients.Wait()
	})
}
