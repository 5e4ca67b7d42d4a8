package events

import "time"

// Stream names. LOG is not named EVENTS: an old backend or CLI pointed at this broker by mistake would reconfigure a
// stream of that name to its own seven-day limits; against LOG it fails on overlapping subjects and harms nothing.
const (
	StreamLog       = "LOG"
	StreamExec      = "EXEC"
	StreamPresence  = "PRESENCE"
	StreamTelemetry = "TELEMETRY"
	StreamObs       = "OBS_EVENTS"
	StreamTimers    = "TIMERS"
	StreamDead      = "DEAD"
	StreamOutput    = "OUTPUT"
)

// Revision of the declarations in this package. Whoever finds a stream or bucket of a later revision leaves it alone.
const Revision = 3

// MaxPayload is the largest message the broker takes, in bytes: two outputs of 256 KiB of an old agent can be 3 MiB of
// JSON, and what is refused is tried again for ever.
const MaxPayload = 4 << 20

// Retention of a stream.
type Retention string

// Retentions. A work queue's message is gone when it is acknowledged.
const (
	RetainLimits    Retention = "limits"
	RetainWorkQueue Retention = "workqueue"
)

// Transform maps subjects of incoming messages before they are stored.
type Transform struct{ Source, Destination string }

// Stream declares one JetStream stream; zero values of limits mean none.
type Stream struct {
	Name      string
	Subjects  []string
	Retention Retention
	MaxAge    time.Duration
	MaxBytes  int64
	// DiscardNew refuses messages at the limit; otherwise the oldest give way.
	DiscardNew bool
	// MaxPerSubject keeps the newest n messages of each subject.
	MaxPerSubject int64
	MaxConsumers  int
	Replicas      int
	// AllowTTL lets a message bear its own Nats-TTL; AllowSchedules lets it be a timer.
	// AllowBatch lets many be acknowledged as one.
	AllowTTL, AllowSchedules, AllowBatch bool
	Transform                            *Transform
	// Why gives the reasons for the limits; it goes into the stream's description.
	Why string
}

// Limits are what an installation decides about its streams. Every service that ensures the streams takes them as flags
// and environment (the tags are kong's); all services of an installation must be given the same. The zero value is not
// usable; begin with DefaultLimits.
type Limits struct {
	// History is how long run facts are kept.
	History time.Duration `name:"history" env:"KANADE_HISTORY" default:"2160h" help:"How long run facts are kept."`
	// Ledger is how long what History forgets goes on in short: execs with their totals, ticks, documents that have been
	// superseded or deleted. At least History and Slack; less counts as that.
	Ledger time.Duration `name:"ledger" env:"KANADE_LEDGER" default:"8760h" help:"How long totals of execs, ticks and superseded documents are kept."`
	// Replicas of every stream: 1 alone, 3 in a cluster.
	Replicas int `name:"replicas" env:"KANADE_REPLICAS" default:"1" help:"Replicas of every stream: 1 alone, 3 in a cluster."`
	// Fleet is the number of endpoints the installation is sized for.
	Fleet int `name:"fleet" env:"KANADE_FLEET" default:"100000" help:"Endpoints that the installation is sized for."`
	// Byte limits of the streams and of the object store of outputs. The broker sets this much disk aside, and refuses a stream for which there is not enough.
	LogBytes       int64 `name:"log-bytes" env:"KANADE_LOG_BYTES" default:"17179869184" help:"Bytes of the log; full, it refuses."`
	TelemetryBytes int64 `name:"telemetry-bytes" env:"KANADE_TELEMETRY_BYTES" default:"2147483648" help:"Bytes of samples."`
	ObsBytes       int64 `name:"obs-bytes" env:"KANADE_OBS_BYTES" default:"2147483648" help:"Bytes of observability events."`
	DeadBytes      int64 `name:"dead-bytes" env:"KANADE_DEAD_BYTES" default:"536870912" help:"Bytes of parked messages."`
	OutputBytes    int64 `name:"output-bytes" env:"KANADE_OUTPUT_BYTES" default:"536870912" help:"Bytes of live output."`
	// ResultOutputBytes bound the store of outputs that are too long for a fact. Full, it refuses, and facts go out without.
	ResultOutputBytes int64 `name:"result-output-bytes" env:"KANADE_RESULT_OUTPUT_BYTES" default:"1073741824" help:"Bytes of long outputs; full, they are kept cut."`
	// SnapshotBytes bound the store of the read model's snapshots. Full, the oldest are taken out.
	SnapshotBytes int64 `name:"snapshot-bytes" env:"KANADE_SNAPSHOT_BYTES" default:"2147483648" help:"Bytes of the read model's snapshots; full, the oldest give way."`
}

// Slack is how much longer than History the log keeps a run fact: the projector forgets first, so that what a rebuild
// can read is never less than what is shown.
const Slack = 7 * 24 * time.Hour

const day = 24 * time.Hour

// DefaultLimits suit one broker, up to 100 000 endpoints and a disk of 50 GB: 90 days of history.
func DefaultLimits() Limits {
	return Limits{
		History: 90 * day, Ledger: 365 * day, Replicas: 1, Fleet: 100_000,
		LogBytes: 16 << 30, TelemetryBytes: 2 << 30, ObsBytes: 2 << 30, DeadBytes: 1 << 29, OutputBytes: 1 << 29,
		ResultOutputBytes: 1 << 30, SnapshotBytes: 2 << 30,
	}
}

// OrDefault is l, or DefaultLimits where nothing is set: for a Config made in code.
func (l Limits) OrDefault() Limits {
	if l == (Limits{}) {
		return DefaultLimits()
	}
	return l
}

// Kept is what is forgotten when: History and Ledger as they count.
func (l Limits) Kept() Retain {
	return Retain{History: l.History, Ledger: max(l.Ledger, l.History+Slack)}
}

// Streams declares every stream of the system.
func Streams(l Limits) []Stream {
	streams := []Stream{
		{
			Name: StreamLog, Subjects: []string{"events.>", "results.>", "audit.>"},
			MaxBytes: l.LogBytes, DiscardNew: true, AllowTTL: true,
			Transform: &Transform{Source: "results.*", Destination: "results.{{partition(16,1)}}"},
			Why: "Every fact in one total order. Full, it refuses loudly and agents keep their outboxes; discarding the oldest would eat documents. " +
				"No age: for each message that is too old the broker would look at every older one that stays; housekeeping deletes. " +
				"Old agents' results share 16 subjects because the broker keeps about 150 bytes of memory a subject.",
		},
		{
			Name: StreamExec, Subjects: []string{"commands.>"}, MaxAge: 7 * day, MaxConsumers: 2 * l.Fleet, AllowBatch: true,
			Why: "Commands, for as long as an endpoint may be away. Every old agent makes a durable consumer. No limit per subject: " +
				"a later command must not displace an earlier one.",
		},
		{
			Name: StreamPresence, Subjects: []string{"heartbeat.>"}, MaxPerSubject: 1,
			Why: "The newest heartbeat of each endpoint. No age: an endpoint that is away stays known.",
		},
		{
			Name: StreamTelemetry, Subjects: []string{"host_perf.>", "process_perf.>"}, MaxAge: 7 * day, MaxBytes: l.TelemetryBytes,
			Why: "Samples; the oldest give way.",
		},
		{
			Name: StreamObs, Subjects: []string{"obs.>"}, MaxAge: 90 * day, MaxBytes: l.ObsBytes,
			Why: "Observability events; the oldest give way.",
		},
		{
			Name: StreamTimers, Subjects: []string{"timers.>"}, Retention: RetainWorkQueue, AllowSchedules: true,
			Why: "Set and due timers. No age and no bytes: any limit would eat the timers that were set longest ago.",
		},
		{
			Name: StreamDead, Subjects: []string{"dead.>"}, MaxAge: 90 * day, MaxBytes: l.DeadBytes,
			Why: "What no handler could process, with the reason.",
		},
		{
			Name: StreamOutput, Subjects: []string{"output.>"}, MaxAge: 6 * time.Hour, MaxBytes: l.OutputBytes,
			Why: "Live output; the whole is an object when the run has ended.",
		},
	}
	for i := range streams {
		streams[i].Replicas = l.Replicas
		if streams[i].Retention == "" {
			streams[i].Retention = RetainLimits
		}
	}
	return streams
}
