package cli

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"kanade/cmd/kanade/internal/client"
	"kanade/libs/events"
)

func at(seconds int) *time.Time {
	t := nine.Add(time.Duration(seconds) * time.Second)
	return &t
}

// sample is a rollout in its third minute: one wave is over, one goes out, the others wait for different things.
func sample() picture {
	code := 3
	return picture{
		exec: client.Execution{
			ExecID: "e1", JobID: "patch", Version: "2", Actor: "user:ann", InitiatedAt: at(0), Status: "running", Paused: true,
			Totals: client.Totals{Expected: map[string]int{"succeeded": 3, "failed": 1, "running": 2, "expected": 9}}, Waves: 5, Released: 2, Sequence: 7,
		},
		waves: []client.Wave{
			{Timing: client.Timing{Label: "group canary", DueAt: at(0)}, State: "done", ReleasedAt: at(0), DispatchedAt: at(1), Size: 4, Released: 4, Dispatched: 4,
				Totals: client.Totals{Expected: map[string]int{"succeeded": 3, "failed": 1}}},
			{Timing: client.Timing{Wave: 1, Label: "10%", DueAt: at(60)}, State: "releasing", ReleasedAt: at(60), DispatchedAt: at(61), Size: 5, Released: 2, Dispatched: 2,
				Totals: client.Totals{Expected: map[string]int{"running": 2, "expected": 3}}},
			{Timing: client.Timing{Wave: 2, Label: "3 named", DueAt: at(300)}, State: "pending", Size: 3, Totals: client.Totals{Expected: map[string]int{"expected": 3}}},
			{Timing: client.Timing{Wave: 3, Label: "50%", DueAt: at(0), After: true, DelaySecs: 5400}, State: "pending", Size: 3, Totals: client.Totals{Others: map[string]int{"waiting": 3}}},
			{Timing: client.Timing{Wave: 4, Label: "100%", DueAt: at(0), Pause: true}, State: "paused"},
		},
		failures: []client.Failure{{State: "failed", ExitCode: &code, Stderr: "one\ntwo\n\x1b[2Jthree\nfour\n", Count: 12, PCs: []string{"a", "b", "c", "d", "e", "f", "g"}}},
	}
}

func drawn(t *testing.T, p picture, now time.Time) string {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, p.print(&b, now, 0))
	return b.String()
}

func TestPictureOfARollout(t *testing.T) {
	text := drawn(t, sample(), *at(120))
	for _, says := range []string{
		"\nstatus    running, paused\n", "\nexpected  9 expected, 2 running, 3 succeeded, 1 failed\n",
		"●·······················  out since ", "███████████████xxxxx  3 succeeded, 1 failed\n",
		"·····●━━━━··············  since ", ", 2 of 5 out  ", "  ▓▓▓▓▓▓▓▓░░░░░░░░░░░░  3 expected, 2 running\n",
		"·······················○  at ", " (in 3m)", "1h30m after the end of wave 2", "others: 3 waiting\n", "nobody is in it                ····················\n" + legend + "\n",
		"  12 endpoints: failed, exit code 3  a,b,c,d,e,f and 6 more\n    | two\n    | [2Jthree\n    | four\n",
	} {
		require.Contains(t, text, says)
	}
	require.NotContains(t, text, "\x1b")

	two := 2
	p := sample()
	require.NotContains(t, text, "allowed")
	p.exec.Budget, p.exec.FailureCount = &client.Budget{MaxFailures: &two, MaxParallel: &two}, 3
	text = drawn(t, p, *at(120))
	require.Contains(t, text, "\nfailures  3 of 2 allowed\nat once   2 endpoints at most, those that failed included (3)\n")
	p.exec.EndedSequence = 99
	require.Contains(t, drawn(t, p, *at(120)), "\nfailures  3 of 2 allowed; it did not halt, as nothing was left to call off\n")

	p = sample()
	p.exec.Stopped = &client.Stop{By: "killed", Actor: "user:bob", Reason: "fills the disk", At: at(90)}
	p.exec.Outcome, p.exec.EndedSequence, p.exec.RetryOf = "killed", 99, "e0"
	p.waves[2].State = "stopped"
	text = drawn(t, p, *at(1000))
	for _, says := range []string{"\nstatus       running\n", "killed by user:bob at ", "(fills the disk)", "\ntries again  e0\n", "does not go out"} {
		require.Contains(t, text, says)
	}
	require.NotContains(t, drawn(t, picture{exec: p.exec}, nine), "WAVE", "not planned yet")
}

func TestWhenAWaveGoesOut(t *testing.T) {
	p := picture{exec: client.Execution{Paused: true}}
	for want, x := range map[string]client.Wave{
		"when the exec is resumed":                  {Timing: client.Timing{DueAt: at(0)}, State: "paused", Size: 1},
		"at the end of wave 1":                      {Timing: client.Timing{Wave: 2, After: true}, State: "pending", Size: 1},
		"at " + clock(*at(-5), *at(0)):              {Timing: client.Timing{DueAt: at(-5)}, State: "pending", Size: 1},
		"at " + when(*at(1e6)) + " (in 277h46m40s)": {Timing: client.Timing{DueAt: at(1e6)}, State: "pending", Size: 1},
	} {
		require.Equal(t, want, p.whenOf(x, nine))
	}
}

// anyTotals are counts of any states, known and not.
func anyTotals(t *rapid.T) client.Totals {
	states := []string{"of a later version"}
	for _, s := range events.TargetStates() {
		states = append(states, string(s))
	}
	side := rapid.MapOfN(rapid.SampledFrom(states), rapid.OneOf(rapid.IntRange(0, 3), rapid.IntRange(0, 100_000)), 0, 6)
	return client.Totals{Expected: side.Draw(t, "expected"), Others: side.Draw(t, "others")}
}

// A bar is as wide as every other, shows every state that there is, and gives the more to the more frequent.
func TestBar(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		totals := anyTotals(t)
		n := map[rune]int{}
		all := 0
		for _, side := range []map[string]int{totals.Expected, totals.Others} {
			for state, count := range side {
				n[mark(events.TargetState(state))] += count
				all += count
			}
		}
		text := bar(totals)
		require.Equal(t, barCells, utf8.RuneCountInString(text))
		if all == 0 {
			return
		}
		cells := map[rune]int{}
		for _, m := range text {
			cells[m]++
		}
		for a := range n {
			require.Equal(t, n[a] > 0, cells[a] > 0, "%c in %s", a, text)
			for b := range n {
				if n[a] > n[b] {
					require.GreaterOrEqual(t, cells[a]+1, cells[b], "%c and %c in %s", a, b, text)
				}
			}
		}
	})
}

func anyTime(t *rapid.T, label string) *time.Time {
	if rapid.Bool().Draw(t, label+" is not known") {
		return nil
	}
	return at(rapid.IntRange(-100, 1_000_000).Draw(t, label))
}

func anyPicture(t *rapid.T) picture {
	p := picture{exec: client.Execution{ExecID: "e1", InitiatedAt: anyTime(t, "asked"), Paused: rapid.Bool().Draw(t, "paused"), Totals: anyTotals(t)}}
	p.exec.EndedSequence = uint64(rapid.IntRange(0, 1).Draw(t, "ended"))
	for i := range rapid.IntRange(0, 4).Draw(t, "waves") {
		w := client.Wave{
			Timing: client.Timing{Wave: i, DueAt: anyTime(t, "due"), After: rapid.Bool().Draw(t, "after"), Pause: rapid.Bool().Draw(t, "pause"),
				DelaySecs: rapid.Uint64Range(0, 1e6).Draw(t, "delay")},
			State:      rapid.SampledFrom([]string{"pending", "paused", "releasing", "sent", "done", "stopped", "odd"}).Draw(t, "state"),
			ReleasedAt: anyTime(t, "released"), DispatchedAt: anyTime(t, "dispatched"), Size: rapid.IntRange(0, 9).Draw(t, "size"), Totals: anyTotals(t),
		}
		w.Dispatched = rapid.IntRange(0, w.Size).Draw(t, "out")
		p.waves = append(p.waves, w)
	}
	return p
}

// Whatever the times are, every line is as long as the others and all columns stand below each other.
func TestPictureIsStraight(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, now := anyPicture(t), *at(rapid.IntRange(-100, 1_000_000).Draw(t, "now"))
		line := p.axis(now)
		for _, x := range p.waves {
			text := line.wave(x)
			require.Equal(t, lineCells, utf8.RuneCountInString(text))
			require.Equal(t, x.ReleasedAt != nil, strings.ContainsRune(text, '●'), text)
		}
		lines, err := p.lines(now, rapid.SampledFrom([]int{0, 80, 200}).Draw(t, "width"))
		require.NoError(t, err)
		bars := map[int]int{}
		for _, text := range lines {
			require.NotContains(t, text, "\n")
			for _, x := range p.waves {
				if at := strings.Index(text, bar(x.Totals)); at > 0 && statesOf(x.Totals) != "" {
					bars[utf8.RuneCountInString(text[:at])]++
					break
				}
			}
		}
		require.LessOrEqual(t, len(bars), 1, "bars begin in different columns")
	})
}

// One line for every change, and none without one.
func TestChanges(t *testing.T) {
	before, after := picture{}, sample()
	require.Equal(t, []string{
		"exec running, paused",
		"wave 0 (group canary) done 3 succeeded, 1 failed",
		"wave 1 (10%) releasing 3 expected, 2 running",
		"wave 2 (3 named) pending 3 expected",
		"wave 3 (50%) pending others: 3 waiting",
		"wave 4 (100%) paused",
		"failure of 12 endpoints failed, exit code 3: four",
	}, changes(before, after))
	before, after = after, sample()
	require.Empty(t, changes(before, after))
	after.exec.Paused = false
	after.exec.Stopped = &client.Stop{By: "killed", Actor: "user:bob", Reason: "too slow"}
	after.waves[1].State = "stopped"
	after.failures[0].Count = 13
	require.Equal(t, []string{
		"exec running, killed by user:bob (too slow)", "wave 1 (10%) stopped 3 expected, 2 running", "failure of 13 endpoints failed, exit code 3: four",
	}, changes(before, after))

	rapid.Check(t, func(t *rapid.T) {
		a, b := anyPicture(t), anyPicture(t)
		require.Empty(t, changes(a, a))
		for _, line := range changes(a, b) {
			require.NotContains(t, line, "\n")
		}
	})
}

// screen is a terminal that knows what redraw sends: text, new lines, the cursor up, and clearing.
type screen struct {
	rows        [][]rune
	row, column int
}

func (s *screen) write(text string) {
	for text != "" {
		for len(s.rows) <= s.row {
			s.rows = append(s.rows, nil)
		}
		switch {
		case strings.HasPrefix(text, clearRight):
			s.rows[s.row], text = s.rows[s.row][:s.column], text[len(clearRight):]
		case strings.HasPrefix(text, clearBelow):
			s.rows, text = s.rows[:s.row], text[len(clearBelow):]
		case text[0] == '\n':
			s.row, s.column, text = s.row+1, 0, text[1:]
		case text[0] == '\x1b':
			end := strings.Index(text, "A\r")
			up, err := strconv.Atoi(text[2:end])
			if err != nil || up > s.row {
				panic(fmt.Sprintf("up %d from row %d: %v", up, s.row, err))
			}
			s.row, s.column, text = s.row-up, 0, text[end+2:]
		default:
			r, size := utf8.DecodeRuneInString(text)
			row := append(s.rows[s.row], 0)
			row[s.column] = r
			s.rows[s.row] = row[:max(len(row)-1, s.column+1)]
			s.column, text = s.column+1, text[size:]
		}
	}
}

// What was drawn last is all that is seen, and it fits.
func TestRedraw(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s screen
		drawn := 0
		for range rapid.IntRange(1, 5).Draw(t, "times") {
			lines := rapid.SliceOfN(rapid.StringMatching(`[a-zé━]{0,12}`), 1, 12).Draw(t, "lines")
			width, height := rapid.IntRange(1, 15).Draw(t, "width"), rapid.IntRange(1, 15).Draw(t, "height")
			fitted := fit(lines, width, height)
			require.LessOrEqual(t, len(fitted), max(height-1, 1))
			for i, line := range fitted {
				require.LessOrEqual(t, utf8.RuneCountInString(line), width)
				if len(lines) < height {
					require.True(t, strings.HasPrefix(lines[i], line))
				}
			}
			var b bytes.Buffer
			drawn = redraw(&b, drawn, fitted)
			s.write(b.String())
			seen := make([]string, len(s.rows))
			for i, row := range s.rows {
				seen[i] = string(row)
			}
			require.Equal(t, fitted, seen)
		}
	})
	require.Equal(t, []string{"a", "… 3 lines more"}, fit([]string{"a", "b", "c", "d"}, 80, 3))
}
