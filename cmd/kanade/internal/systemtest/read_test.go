package systemtest

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"kanade/libs/bus"
	"kanade/libs/bus/bustest"
	"kanade/services/projector"
)

// TestProveReadYourWrites lets clients write and at once read what they have written, from an api over two copies of the
// read model, of which one after the other is taken away and comes back, and is built anew now and then, the less often
// the longer the log is: who names his sequence never reads an older state.
func TestProveReadYourWrites(t *testing.T) {
	const clients, eachTime = 8, 25
	rounds := 12
	if os.Getenv("KANADE_PROVE") == "full" {
		rounds = 1_000_000 / (clients * eachTime)
	}
	var pairs, stale, later atomic.Int64
	restarts, rebuilds, rebuild := 0, 0, 5
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t)
		limits := bustest.Limits()
		limits.LogBytes = 4 << 30
		require.NoError(t, bustest.Dial(t, s.broker).Ensure(t.Context(), limits))
		replica := func(n int, rebuild bool) {
			s.run(fmt.Sprint("projector-", n), s.broker, func(ctx context.Context, b *bus.Bus) error {
				return projector.Run(ctx, projector.Config{ReadModelDir: s.readModel, Rebuild: rebuild}, projector.Deps{Bus: b, Logger: quiet(t)})
			})
		}
		replica(0, false)
		replica(1, false)
		s.startAPI()
		settle(time.Second)
		s.write(http.MethodPost, "/api/jobs", `{"id":"job","version":"1","execute":{"shell":"sh","timeout":"30s","script":"true"}}`)
		for n := range rounds {
			var all sync.WaitGroup
			for range clients {
				all.Go(func() {
					for range eachTime {
						text, header, err := s.try(http.MethodPost, "/api/exec/job", `{"target":{"pcs":["pc"]}}`)
						if err != nil {
							t.Error(err)
							return
						}
						var exec struct {
							ExecID string `json:"exec_id"`
						}
						if err := json.Unmarshal(text, &exec); err != nil {
							t.Error(err)
							return
						}
						s.readBack(exec.ExecID, header.Get("Kanade-Sequence"), &stale, &later)
						pairs.Add(1)
					}
				})
			}
			name := fmt.Sprint("projector-", n%2)
			s.cut(name)
			replica(n%2, n == rebuild)
			restarts++
			all.Wait()
			require.Zero(t, stale.Load())
			if n == rebuild {
				settle(5 * time.Second) // what was replaced is removed
				rebuilds, rebuild = rebuilds+1, rebuild+(max(4, rebuild/8)|1)
			}
		}
	})
	t.Logf("PROVED %s: %d pairs of a write and a read over two copies, %d restarts and %d rebuilds of them, %d reads answered later (503), %d stale",
		t.Name(), pairs.Load(), restarts, rebuilds, later.Load(), stale.Load())
}

// readBack reads an exec as of a sequence; what is not there is stale. The answer that the read model is not that far is
// none, and is asked for again.
func (s *site) readBack(id, sequence string, stale, later *atomic.Int64) {
	for {
		text, header, err := s.try(http.MethodGet, "/api/executions/"+id, "", "Kanade-Min-Sequence", sequence)
		switch {
		case err != nil && strings.Contains(err.Error(), ": 503 "):
			later.Add(1)
			continue
		case err != nil:
			s.t.Errorf("read exec %s: %v", id, err)
			stale.Add(1)
			return
		}
		applied, _ := strconv.ParseUint(header.Get("Kanade-Applied-Sequence"), 10, 64)
		if wanted, _ := strconv.ParseUint(sequence, 10, 64); applied < wanted || !strings.Contains(string(text), id) {
			stale.Add(1)
		}
		return
	}
}
