//go:build unix

package systemtest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Broker, api, projectors, schedulers and agents run as processes of their own and are killed with SIGKILL in turn, at
// random points, while execs are asked for and run. In the end every accepted exec has ended, every endpoint's result is
// in the read model once, no request has made two execs, and the file that every script appends to witnesses that no run
// was started twice. Unknown is a result only where the agent was killed while that run was going. The read models that
// were killed hold the same rows as one that is built from the log in one go.
//
// 25 kills, or 500 with KANADE_PROVE=full (which takes about ten minutes: -timeout 30m). KANADE_SEED repeats the choice
// of victims, moments and requests, not the order in which processes get on.
func TestProveKillAnyService(t *testing.T) {
	long(t)
	kills := 25
	if os.Getenv("KANADE_PROVE") == "full" {
		kills = 500
	}
	seed := drawnSeed(t)
	s := newInstallation(t)
	s.prepare()
	l := s.startLoad(seed)
	killed := s.killInTurn(kills, rand.New(rand.NewPCG(seed, 1<<32)))
	execs := l.end()
	found := s.check(execs)
	s.compareReadModels()
	t.Logf("PROVED %s: %d kills (%s), %d execs, %d runs, %d unknown, %d requests repeated, seed %d",
		t.Name(), kills, killed, len(execs), found.runs, found.unknown, l.repeated, seed)
}

// killInTurn kills a process of every kind once a round, and starts it again after a pause. It says how many of each.
func (s *installation) killInTurn(kills int, r *rand.Rand) string {
	kinds := []kind{kindBroker, kindScheduler, kindProjector, kindAPI, kindAgent}
	for n := range kills {
		if n%len(kinds) == 0 {
			r.Shuffle(len(kinds), func(i, j int) { kinds[i], kinds[j] = kinds[j], kinds[i] })
		}
		victims := s.of(kinds[n%len(kinds)])
		p := victims[r.IntN(len(victims))]
		s.pause(100*time.Millisecond + time.Duration(r.Int64N(int64(time.Second))))
		p.kill()
		s.pause(time.Duration(r.Int64N(int64(500 * time.Millisecond))))
		require.NoError(s.t, p.start())
	}
	var counts []string
	for _, k := range []kind{kindAPI, kindProjector, kindScheduler, kindBroker, kindAgent} {
		n := 0
		for _, p := range s.of(k) {
			n += len(p.kills)
		}
		counts = append(counts, fmt.Sprintf("%s %d", k, n))
	}
	return strings.Join(counts, ", ")
}
