package catalog

import (
	"slices"

	"github.com/go-json-experiment/json/jsontext"

	"kanade/libs/events"
)

// Resolve is the script as it goes into an exec with these values of its params: the values, and the defaults of those
// that are not given, stand in its environment ([Execute.Params] says how). A script object is named and not pinned. The
// error is an *[Error] of kind Invalid whose paths begin with params.
func (m *Manifest) Resolve(params map[string]jsontext.Value) (events.Script, error) {
	var p problems
	s := m.Execute.resolve()
	s.Env = m.Execute.environment(&p, params)
	if m.Staleness.Mode != Cached {
		s.Staleness = string(m.Staleness.Mode)
	}
	if m.Staleness.MaxCacheAge != nil {
		s.MaxCacheAge = string(*m.Staleness.MaxCacheAge)
	}
	return s, p.err()
}

// resolve is the part of [Manifest.Resolve] that depends on nothing else. The manifest's script is inline or an object:
// script files were inlined before the manifest was stored.
func (e *Execute) resolve() events.Script {
	s := events.Script{
		Shell: string(e.Shell), Body: e.Script, TimeoutSecs: uint64(e.TimeoutSecs()), RunAs: string(e.RunAs), Cwd: e.Cwd,
		Env: e.Env, Args: e.Args,
	}
	if !slices.Equal(e.SuccessCodes, []int{0}) { // what is meant without it, and old agents know no other
		s.SuccessCodes = e.SuccessCodes
	}
	if e.ScriptObject != nil {
		s.Object = *e.ScriptObject
	}
	if e.Stdin != nil {
		s.Stdin = *e.Stdin
	}
	return s
}
