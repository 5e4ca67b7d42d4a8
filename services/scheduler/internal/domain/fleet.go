package domain

import (
	"iter"
	"slices"
	"time"

	"kanade/libs/catalog/fanout"
	"kanade/libs/events"
	"kanade/libs/events/wire"
)

// Endpoint is one endpoint as the scheduler knows it.
type Endpoint struct {
	events.AgentSeen
	// Known: its first heartbeat is in the log. An endpoint may have groups before it is known.
	Known   bool     `json:"known,omitempty"`
	Groups  []string `json:"groups,omitempty"`
	LastSeq uint64   `json:"last_seq"`
	// HeardAt is the newest heartbeat's arrival; it comes from PRESENCE, not from the log, and is not saved.
	HeardAt time.Time `json:"-"`
}

// Alive reports whether it has been heard within events.AliveFor.
func (e *Endpoint) Alive(now time.Time) bool {
	return events.Alive(e.HeardAt, now)
}

// Fleet is every endpoint by id.
type Fleet map[string]*Endpoint

// get makes the endpoint when it is not there.
func (f Fleet) get(id string) *Endpoint {
	e := f[id]
	if e == nil {
		e = &Endpoint{AgentSeen: events.AgentSeen{PCID: id}}
		f[id] = e
	}
	return e
}

// in reports whether the endpoint belongs to all or to one of the groups.
func (e *Endpoint) in(all bool, groups []string) bool {
	return all || slices.ContainsFunc(e.Groups, func(g string) bool { return slices.Contains(groups, g) })
}

// Seen is the fact that a heartbeat makes true, if it says anything that the log does not know. An endpoint whose id
// is not legal is never registered: ok is false.
func (f Fleet) Seen(h wire.Heartbeat) (fact events.AgentSeen, expected uint64, ok bool) {
	fact = events.AgentSeen{PCID: h.PCID, AgentVersion: h.AgentVersion, Hostname: h.Hostname, OSFamily: h.OSFamily}
	if events.ValidID(h.PCID) != nil {
		return fact, 0, false
	}
	e := f[h.PCID]
	if e == nil {
		return fact, 0, true
	}
	return fact, e.LastSeq, !e.Known || e.AgentSeen != fact
}

// Endpoint and Endpoints make the fleet one that a plan can be made for (fanout.Fleet).
func (f Fleet) Endpoint(id string) (fanout.Endpoint, bool) {
	e, ok := f[id]
	if !ok {
		return fanout.Endpoint{}, false
	}
	return e.planned(), true
}

// Endpoints are all of them, in no order.
func (f Fleet) Endpoints() iter.Seq[fanout.Endpoint] {
	return func(yield func(fanout.Endpoint) bool) {
		for _, e := range f {
			if !yield(e.planned()) {
				return
			}
		}
	}
}

func (e *Endpoint) planned() fanout.Endpoint {
	return fanout.Endpoint{
		PCID: e.PCID, AgentVersion: e.AgentVersion, OSFamily: e.OSFamily, Known: e.Known, Groups: e.Groups, HeardAt: e.HeardAt,
	}
}
