package events

import (
	"fmt"

	"github.com/go-json-experiment/json"
)

// TypeInfo describes one version of one fact: the registry behind decoding, the goldens and docs/events.md.
type TypeInfo struct {
	// Name is the versioned type name.
	Name string
	// Writer is the service that appends it.
	Writer string
	// Doc says what is true once it is in the log.
	Doc string
	// Sample is a complete example; its golden JSON is never edited.
	Sample Payload

	decode func([]byte) (Payload, error)
}

// Subject is the pattern it is stored on, the id as "<id>".
func (t TypeInfo) Subject() string {
	a, f := splitType(t.Name)
	return prefixEvents + string(a) + ".<id>." + f
}

func typeOf[P Payload](writer, doc string, sample P) TypeInfo {
	return TypeInfo{
		Name: sample.EventType(), Writer: writer, Doc: doc, Sample: sample,
		decode: func(data []byte) (Payload, error) {
			var p P
			if err := json.Unmarshal(data, &p); err != nil {
				return nil, err
			}
			if p.AggregateID() == "" {
				return nil, fmt.Errorf("the id of its aggregate is missing")
			}
			return p, nil
		},
	}
}

// Types lists every fact there is, in the order of the documentation.
func Types() []TypeInfo {
	types := make([]TypeInfo, 0, len(registry))
	return append(types, registry...)
}

// TypeByName finds one type.
func TypeByName(name string) (TypeInfo, bool) {
	i, ok := registered[name]
	if !ok {
		return TypeInfo{}, false
	}
	return registry[i], true
}

// registered is where in the registry a name stands: every message of the log is looked up.
var registered = func() map[string]int {
	at := make(map[string]int, len(registry))
	for i, t := range registry {
		at[t.Name] = i
	}
	return at
}()

// registry is never written after start.
var registry = []TypeInfo{
	typeOf("api", "A job's manifest is stored; it is the current one until the next fact of this job. `document` is the manifest as JSON with defaults filled in, `source` the text as sent, `hash` the SHA-256 of `document`.", sampleJobSaved),
	typeOf("api", "The job is gone. Its earlier documents stay readable for the execs that ran them.", sampleJobDeleted),
	typeOf("api", "A schedule is stored; it rules the next tick.", sampleScheduleSaved),
	typeOf("api", "The schedule is gone; ticks that lie after this fact do not exist.", sampleScheduleDeleted),
	typeOf("scheduler", "A nominal tick has ended: fired (with the whole ExecRequested, which whoever finds it missing appends), skipped with a reason, caught up, or missed. Consecutive ticks of one outcome without an exec are one fact.", sampleScheduleTicked),
	typeOf("scheduler", "What a schedule remembers of endpoints has changed: last success, open run, failures in a row.", sampleScheduleProgressed),
	typeOf("api, scheduler", "Somebody, or a tick, asked for a job to be run on a target. Everything that decides what runs is in it.", sampleExecRequested),
	typeOf("scheduler", "It is decided which endpoints run it, in which wave and when, who is waited for and who is left out and why.", sampleExecPlanned),
	typeOf("scheduler", "A wave is due; from this fact on its commands may go out. `exec_stream_sequence` is the last sequence of EXEC at that moment: everything the wave sends lies after it.", sampleWaveReleased),
	typeOf("scheduler", "All commands of the wave are stored in EXEC.", sampleWaveDispatched),
	typeOf("scheduler", "Every expected endpoint has answered, or there was none to ask. `outcome` is final.", sampleExecClosed),
	typeOf("scheduler", "An endpoint has answered, or said otherwise, after the exec had closed: the totals are these. At most one a minute; the outcome stands.", sampleExecCorrected),
	typeOf("scheduler", "The exec's time is up: whoever has not answered will not be waited for, and what its commands left in EXEC is taken out.", sampleExecExpired),
	typeOf("scheduler", "The exec has ended and is older than the history: this is what is known of it when its other facts have left the log.", sampleExecReduced),
	typeOf("scheduler", "The failure budget is used up: what has not gone out never will, what is out and has not started is called off, what runs goes on.", sampleExecHalted),
	typeOf("api", "An operator cancelled it: what has not gone out never will, what is out and has not started is called off, what runs goes on.", sampleExecCancelled),
	typeOf("api", "An operator killed it: as cancelled, and what runs is killed. It holds for endpoints that are away as well, and may follow the exec's end, for those that have not answered.", sampleExecKilled),
	typeOf("api", "An operator paused it: no further wave goes out.", sampleExecPaused),
	typeOf("api", "An operator resumed it: waves go out again, those whose time has come at once.", sampleExecResumed),
	typeOf("api", "An operator lets a wave go out now, whatever it would have waited for.", sampleWaveAdvanced),
	typeOf("api, scheduler", "A job is revoked: its commands that have not started are skipped everywhere. The scheduler adopts what an old CLI writes into the bucket.", sampleScriptRevoked),
	typeOf("api, scheduler", "The revocation is taken back.", sampleScriptUnrevoked),
	typeOf("api", "Schedules do not fire while it lasts.", sampleFreezeSaved),
	typeOf("api", "The freeze is over.", sampleFreezeCleared),
	typeOf("scheduler", "An endpoint has been heard for the first time, or its version, host name or system changed.", sampleAgentSeen),
	typeOf("api", "The endpoint's groups, the whole sorted list.", sampleAgentGrouped),
	typeOf("agent", "The endpoint has the command and has written it into its ledger; it will be run once or skipped with a reason.", sampleRunReceived),
	typeOf("agent", "The script is about to be started.", sampleRunStarted),
	typeOf("agent", "The run has ended, however. State `unknown`: the agent died while it ran, and it is not run again.", sampleRunFinished),
	typeOf("agent", "The endpoint does not run the command, and says why.", sampleRunSkipped),
	typeOf("api", "Somebody asked for the read model's copies to be held against the log, or to be built anew from it.", sampleCheckRequested),
	typeOf("projector", "One copy of the read model was held against the log: what differed, and whether it was replaced.", sampleChecked),
	typeOf("api", "Somebody looks at a past moment: a read model of it is to be built. `sequence` is the last message that it holds.", samplePastRequested),
	typeOf("scheduler", "What holds for the whole installation: the zone that `local` means.", sampleInstallationSaved),
	typeOf("api", "A named calendar is stored; schedules that name it leave its days out, or keep to them.", sampleCalendarSaved),
	typeOf("api", "The named calendar is gone.", sampleCalendarDeleted),
	typeOf("scheduler", "A day has begun, in UTC: the log's time goes on while nobody does anything.", sampleClockTicked),
}
