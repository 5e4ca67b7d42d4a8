package catalog

import "kanade/libs/events"

// Resolve is the script as it goes into an exec. The manifest's script is inline: script files were inlined before the
// manifest was stored.
func (e *Execute) Resolve() events.Script {
	return events.Script{
		Shell: string(e.Shell), Body: e.Script, TimeoutSecs: uint64(e.TimeoutSecs()), RunAs: string(e.RunAs), Cwd: e.Cwd,
	}
}
