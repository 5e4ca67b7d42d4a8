package domain_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"kanade/libs/events"
	"kanade/services/scheduler/internal/domain"
)

// rule is how a kind of fact leaves the log.
type rule string

// The rules, as the comment on Housekeeping has them.
const (
	ruleAge      rule = "age"      // it is older than the history
	ruleExec     rule = "exec"     // when the exec has been reduced
	ruleReduced  rule = "reduced"  // when the exec is older than the ledger
	ruleTick     rule = "tick"     // when it is older than the ledger, the newest apart
	ruleDocument rule = "document" // when it has been superseded, or deleted
	ruleRecord   rule = "record"   // when it is older than the ledger
	ruleProgress rule = "progress" // when each of its endpoints has a later one
)

// ruleOf is the rule of a fact; false for one that nobody has decided on.
func ruleOf(p events.Payload) (rule, bool) {
	switch p.(type) {
	case events.RunReceived, events.RunStarted, events.RunFinished, events.RunSkipped, events.ClockTicked:
		return ruleAge, true
	case events.ExecRequested, events.ExecPlanned, events.WaveReleased, events.WaveDispatched, events.WaveAdvanced, events.ExecPaused,
		events.ExecResumed, events.ExecHalted, events.ExecCancelled, events.ExecKilled, events.ExecClosed, events.ExecCorrected, events.ExecExpired:
		return ruleExec, true
	case events.ExecReduced:
		return ruleReduced, true
	case events.ScheduleTicked:
		return ruleTick, true
	case events.ScheduleProgressed:
		return ruleProgress, true
	case events.ReadModelCheckRequested, events.ReadModelChecked, events.ReadModelPastRequested:
		return ruleRecord, true
	case events.JobSaved, events.JobDeleted, events.ScheduleSaved, events.ScheduleDeleted, events.ScriptRevoked, events.ScriptUnrevoked,
		events.FreezeSaved, events.FreezeCleared, events.InstallationSaved, events.AgentSeen, events.AgentGrouped,
		events.CalendarSaved, events.CalendarDeleted:
		return ruleDocument, true
	}
	return "", false
}

const day = 24 * time.Hour

// Nobody adds a fact without deciding how it leaves the log; what ages bears no "never", all else does.
func TestEveryFactHasARule(t *testing.T) {
	documents := map[string]int{}
	for _, k := range domain.DocumentKinds() {
		for _, fact := range k.Facts() {
			documents[string(k.Aggregate)+"."+fact]++
		}
	}
	for _, info := range events.Types() {
		how, ok := ruleOf(info.Sample)
		require.True(t, ok, "%s: decide in ruleOf when it leaves the log", info.Name)
		e, err := events.New(info.Sample, events.Meta{ID: "1"})
		require.NoError(t, err)
		header, _, err := e.Encode()
		require.NoError(t, err)
		require.Equal(t, how == ruleAge, events.Ages(header), info.Name)
		require.Equal(t, how == ruleAge, slices.ContainsFunc(events.AgingFilters(), func(filter string) bool {
			return strings.HasPrefix(e.NATSSubject(), strings.TrimSuffix(filter, ">"))
		}), "AgingFilters: %s", info.Name)
		name := string(e.Aggregate()) + "." + e.Fact()
		want := 0
		if how == ruleDocument {
			want = 1
		}
		require.Equal(t, want, documents[name], "%s: DocumentKinds has it if it is of a document", info.Name)
		delete(documents, name)
	}
	require.Empty(t, documents, "DocumentKinds has facts that there are not")
	_, ok := ruleOf(unknown{})
	require.False(t, ok)
}

type unknown struct{}

func (unknown) EventType() string   { return "kanade.job.moved.v1" }
func (unknown) AggregateID() string { return "x" }

func TestNextDay(t *testing.T) {
	noon := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct{ newest, day string }{
		{"", "2026-11-24"},           // a new log: the first day is not begun twice
		{"2026-11-23", "2026-11-24"}, // today's has been
		{"2026-11-20", "2026-11-23"}, // it was down: at once
		{"2027-01-01", "2026-11-24"}, // the broker's clock went back
	} {
		day, begins := domain.NextDay(c.newest, noon)
		require.Equal(t, c.day, day)
		require.Equal(t, day, domain.DayOf(begins))
		require.Zero(t, begins.Sub(begins.Truncate(24*time.Hour)))
	}
	east := time.FixedZone("east", 9*3600)
	require.Equal(t, "2026-11-22", domain.DayOf(time.Date(2026, 11, 23, 8, 0, 0, 0, east)), "days are UTC's")
}

func TestDueAt(t *testing.T) {
	r := events.Retain{History: 10 * day, Ledger: 30 * day}
	log := time.Date(2026, 11, 23, 12, 40, 0, 0, time.UTC)
	hour := log.Truncate(time.Hour)
	require.Equal(t, domain.Due{
		History: hour.Add(-10 * day), Slack: hour.Add(-7 * day), Ledger: hour.Add(-37 * day), Aged: hour.Add(-17 * day),
	}, domain.DueAt(r, log))
}

// stored is a fact of a log in memory.
type stored struct {
	events.Event
	payload events.Payload
	seq     uint64
	at      time.Time
}

// memory is a log in memory, with what housekeeping asks of one.
type memory []stored

func (l *memory) add(t tester, p events.Payload, at time.Time) {
	t.Helper()
	e, err := events.New(p, events.Meta{ID: fmt.Sprint(len(*l)), Time: at})
	require.NoError(t, err)
	seq := uint64(1)
	if n := len(*l); n > 0 {
		seq = (*l)[n-1].seq + 1
	}
	*l = append(*l, stored{e, p, seq, at})
}

func (l memory) fold(t tester, r events.Retain) *domain.State {
	t.Helper()
	s := domain.New(r)
	for _, f := range l {
		require.NoError(t, s.Apply(f.Event, f.seq, f.at))
	}
	return s
}

// last is the sequence and time of the last fact of an aggregate.
func (l memory) last(a events.Aggregate, id string) (seq uint64, at time.Time) {
	for _, f := range l {
		if f.Aggregate() == a && f.Subject == id {
			seq, at = f.seq, f.at
		}
	}
	return seq, at
}

// keep deletes what the decisions say, as the package housekeeping does.
func (l memory) keep(state *domain.State, due domain.Due) memory {
	gone := map[uint64]bool{}
	each := func(match func(stored) bool, do func(stored)) {
		for _, f := range l {
			if match(f) {
				do(f)
			}
		}
	}
	drop := func(f stored) { gone[f.seq] = true }
	for _, kind := range domain.DocumentKinds() {
		is := func(f stored) bool { return f.Aggregate() == kind.Aggregate && slices.Contains(kind.Facts(), f.Fact()) }
		var old []domain.DocumentFact
		each(func(f stored) bool { return is(f) && f.at.Before(due.Ledger) }, func(f stored) {
			old = append(old, domain.DocumentFact{ID: f.Subject, Seq: f.seq, Ends: slices.Contains(kind.Ends, f.Fact())})
		})
		for id, o := range domain.Superseded(old) {
			each(func(f stored) bool { return is(f) && f.Subject == id && f.seq < o.Before }, drop)
			if _, at := l.last(kind.Aggregate, id); o.Ended && at.Before(due.Ledger) {
				each(func(f stored) bool { return f.Aggregate() == kind.Aggregate && f.Subject == id }, drop)
			}
		}
	}
	lastOld, newest := map[string]uint64{}, map[string]uint64{}
	ticked := func(f stored) bool { _, is := f.payload.(events.ScheduleTicked); return is }
	each(ticked, func(f stored) {
		if newest[f.Subject] = f.seq; f.at.Before(due.Ledger) {
			lastOld[f.Subject] = f.seq
		}
	})
	each(ticked, func(f stored) {
		if seq := lastOld[f.Subject]; f.seq < seq || f.seq == seq && domain.TickLeaves(seq, newest[f.Subject]) {
			drop(f)
		}
	})
	each(func(f stored) bool { return f.at.Before(due.Slack) }, func(f stored) {
		if p, is := f.payload.(events.ScheduleProgressed); is && state.Schedules[p.ID] != nil && state.Schedules[p.ID].Outlived(f.seq, p.Changes, due.Ledger) {
			drop(f)
		}
	})
	return slices.DeleteFunc(slices.Clone(l), func(f stored) bool { return gone[f.seq] })
}

// Whatever housekeeping deletes, and however often: a fold of the rest knows the same documents and expects the same
// sequences, which are those that the log has. The newest of what lives never leaves, and nothing does that is younger than
// the rule says.
func TestForgettingChangesNothing(t *testing.T) {
	r := events.Retain{History: 10 * day, Ledger: 30 * day}
	interval := document(t, "when: {per_pc: {every: 6h}}\n")
	rapid.Check(t, func(t *rapid.T) {
		var all memory
		now, n := start, 0
		id := func(of ...string) string { return rapid.SampledFrom(of).Draw(t, "id") }
		open := map[string]bool{} // schedules that are there
		for range rapid.IntRange(1, 80).Draw(t, "facts") {
			now = now.Add(time.Duration(rapid.IntRange(0, 20*24).Draw(t, "hours")) * time.Hour)
			n++
			hash := fmt.Sprint(n)
			var p events.Payload
			switch rapid.IntRange(0, 12).Draw(t, "kind") {
			case 0:
				p = events.JobSaved{ID: id("j", "k"), DocumentRevision: events.DocumentRevision{Document: interval, Hash: hash}}
			case 1:
				p = events.JobDeleted{ID: id("j", "k")}
			case 2:
				p = events.AgentSeen{PCID: id("a", "b"), Hostname: hash}
			case 3:
				p = events.AgentGrouped{PCID: id("a", "b"), Groups: []string{hash}}
			case 4:
				p = events.FreezeSaved{ID: events.FleetID, Reason: hash}
			case 5:
				p = events.FreezeCleared{ID: events.FleetID}
			case 6:
				p = events.InstallationSaved{ID: events.InstallationID, Zone: id("UTC", "Europe/Berlin")}
			case 7:
				p = events.ScriptRevoked{JobID: "j", Reason: hash}
			case 8:
				p = events.ScriptUnrevoked{JobID: "j"}
			case 9:
				s := id("s", "t")
				open[s] = true
				p = events.ScheduleSaved{ID: s, JobID: hash, Enabled: true, DocumentRevision: events.DocumentRevision{Document: interval, Hash: hash}}
			case 10:
				s := id("s", "t")
				if !open[s] {
					continue
				}
				open[s] = false
				p = events.ScheduleDeleted{ID: s}
			case 11:
				s := id("s", "t")
				if !open[s] {
					continue
				}
				p = events.ScheduleTicked{ID: s, Outcome: events.TickSkipped, From: now, To: now, Count: 1}
			default:
				s := id("s", "t")
				if !open[s] {
					continue
				}
				fired := now
				progress := events.ScheduleProgressed{ID: s}
				for _, pc := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c"}), 1, 3, rapid.ID).Draw(t, "pcs") {
					progress.Changes = append(progress.Changes, events.Progress{PCID: pc, Fired: &fired, Failures: n})
				}
				p = progress
			}
			all.add(t, p, now)
		}
		now = now.Add(time.Duration(rapid.IntRange(0, 100).Draw(t, "days")) * day)
		all.add(t, events.ClockTicked{ID: events.ClockID, Day: domain.DayOf(now)}, now)
		due := domain.DueAt(r, now)
		whole := all.fold(t, r)
		rest := all.keep(whole, due)
		require.Equal(t, rest, rest.keep(whole, due), "repeating does no more")
		state := rest.fold(t, r)

		require.Equal(t, whole.Fleet, state.Fleet)
		require.Equal(t, whole.Freeze, state.Freeze)
		require.Equal(t, []any{whole.Zone, whole.ZoneSeq, whole.Day}, []any{state.Zone, state.ZoneSeq, state.Day})
		require.Equal(t, slices.Sorted(maps.Keys(whole.Schedules)), slices.Sorted(maps.Keys(state.Schedules)))
		for id, want := range whole.Schedules {
			have := state.Schedules[id]
			last, _ := rest.last(events.AggregateSchedule, id)
			require.Equal(t, []uint64{want.LastSeq, want.LastSeq}, []uint64{have.LastSeq, last}, "what an append expects is what the log has")
			require.Equal(t, want.Progress, have.Progress)
			require.Equal(t, want.Current() == nil, have.Current() == nil)
			if want.Current() != nil {
				require.Equal(t, want.Current().Seq, have.Current().Seq)
				require.Equal(t, laterOf(want.Mark, want.Current().At), laterOf(have.Mark, have.Current().At), "the same ticks are due")
			}
		}
		for _, e := range whole.Fleet {
			last, _ := rest.last(events.AggregateAgent, e.PCID)
			require.Equal(t, e.LastSeq, last)
		}
		kept := map[uint64]bool{}
		for _, f := range rest {
			kept[f.seq] = true
		}
		for i, f := range all {
			if kept[f.seq] {
				continue
			}
			require.True(t, f.at.Before(due.Slack), "%s is younger than the slack", f.Type)
			if _, is := f.payload.(events.ScheduleProgressed); is {
				continue // what is remembered was compared
			}
			require.True(t, f.at.Before(due.Ledger), "%s is younger than the ledger", f.Type)
			if how, _ := ruleOf(f.payload); how != ruleDocument {
				continue
			}
			ended := f.Fact() == "deleted" || f.Fact() == "cleared" || f.Fact() == "unrevoked"
			superseded := slices.ContainsFunc(all[i+1:], func(g stored) bool {
				return documentOf(g) == documentOf(f) && g.at.Before(due.Ledger)
			})
			require.True(t, superseded || ended, "%s of %s was the newest of what lives", f.Type, f.Subject)
		}
	})
}

// documentOf names the document that a fact belongs to.
func documentOf(f stored) string {
	kind := f.Fact()
	if kind != "seen" && kind != "grouped" {
		if how, _ := ruleOf(f.payload); how != ruleDocument {
			return ""
		}
		kind = "document"
	}
	return strings.Join([]string{string(f.Aggregate()), f.Subject, kind}, "/")
}

func laterOf(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func TestSuperseded(t *testing.T) {
	got := domain.Superseded([]domain.DocumentFact{
		{ID: "once", Seq: 1}, {ID: "twice", Seq: 2}, {ID: "gone", Seq: 6, Ends: true}, {ID: "twice", Seq: 3}, {ID: "gone", Seq: 4}, {ID: "back", Seq: 5, Ends: true},
		{ID: "back", Seq: 7}, {ID: "never", Seq: 8, Ends: true},
	})
	require.Equal(t, map[string]domain.Outlived{
		"twice": {Before: 3, Last: 3}, "gone": {Before: 6, Ended: true, Last: 6}, "back": {Before: 7, Last: 7}, "never": {Ended: true, Last: 8},
	}, got)
}

func TestTickLeaves(t *testing.T) {
	require.True(t, domain.TickLeaves(10, 20), "younger ones follow")
	require.False(t, domain.TickLeaves(10, 10), "the newest stays, however old")
}

func TestScheduleIsForgotten(t *testing.T) {
	h := newHistory(t)
	h.add(scheduleSaved(t, "when: {per_pc: {every: 6h}}\n"), events.ScheduleDeleted{ID: "s"})
	clock := func(after time.Duration) {
		h.now = h.now.Add(after)
		h.add(events.ClockTicked{ID: events.ClockID, Day: domain.DayOf(h.now)})
	}
	clock(retain.Ledger)
	h.reload()
	require.Contains(t, h.state.Schedules, "s")
	clock(events.Slack + time.Hour)
	require.Empty(t, h.state.Schedules)
	h.add(scheduleSaved(t, "when: {per_pc: {every: 6h}}\n"))
	require.Equal(t, h.seq, h.state.Schedules["s"].LastSeq, "one of that name begins anew")
	h.add(events.ScheduleDeleted{ID: "s"}, scheduleSaved(t, "when: {per_pc: {every: 6h}}\n"))
	clock(2 * retain.Ledger)
	require.Contains(t, h.state.Schedules, "s", "it is there again")
}
