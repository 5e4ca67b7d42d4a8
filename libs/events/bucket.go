package events

import "time"

// Buckets that agents and CLIs of kanade 0.43.45 read. Their values are views made from the log.
const (
	BucketScriptCurrent = "script_current"
	BucketScriptStatus  = "script_status"
	BucketAgentConfig   = "agent_config"
	BucketAgentGroups   = "agent_groups"
	BucketJobs          = "jobs"
	BucketJobsYAML      = "jobs_yaml"
	BucketSchedules     = "schedules"
	BucketSchedulesYAML = "schedules_yaml"
	BucketFleetConfig   = "fleet_config"
	BucketAgentsState   = "agents_state"
)

// Buckets of ours, which only our agents read.
const (
	// BucketCatalog holds whole documents: jobs.<id>, schedules.<id>, freeze.
	BucketCatalog = "catalog"
	// BucketExecStopped says how an exec ended, for whoever comes back to a command of it.
	BucketExecStopped = "exec_stopped"
)

// Object stores. The last two are ours.
const (
	StoreScripts       = "scripts"
	StoreResultOutput  = "result_output"
	StoreAgentReleases = "agent_releases"
	StoreAppPackages   = "app_packages"
	// StoreSchedulerState holds the scheduler's fold with the log position it is of. It only makes a start faster.
	StoreSchedulerState = "scheduler_state"
	// StoreReadModel holds snapshots of the read model, each with the log position it is of. They only make a start, and a
	// look at the past, faster.
	StoreReadModel = "read_model"
)

// ExecScriptPrefix begins the names of objects in StoreScripts that are the scheduler's: long scripts of execs. They are
// nobody's to list or to name in a manifest.
const ExecScriptPrefix = "_exec/"

// ExecScript is the object of an exec's own script.
func ExecScript(execID string) string { return ExecScriptPrefix + execID }

// Bucket declares one key-value bucket.
type Bucket struct {
	Name         string
	History      uint8
	Replicas     int
	MaxConsumers int
	// Direct lets a follower answer a get. Off where a stale answer would run what is stopped.
	Direct bool
	// AllowTTL lets an entry bear its own time to live.
	AllowTTL bool
	Why      string
}

// watchesPerAgent is how many ordered consumers an old agent holds on one bucket, with one more while it reconnects.
const watchesPerAgent = 2

// Buckets declares every bucket. All must exist before an agent starts: without script_current and script_status an
// old agent runs without those gates until its process ends.
func Buckets(l Limits) []Bucket {
	buckets := []Bucket{
		{Name: BucketScriptCurrent, History: 5, Why: "The version of each job that may run."},
		{Name: BucketScriptStatus, History: 5, Why: "ACTIVE or REVOKED for each job."},
		{Name: BucketAgentConfig, History: 5, Why: "Configuration scopes: global, groups.<group>, pcs.<pc_id>."},
		{Name: BucketAgentGroups, History: 5, Why: "The groups of each endpoint."},
		{Name: BucketJobs, History: 5, Why: "Manifests that a 0.43.45 agent can read."},
		{Name: BucketJobsYAML, History: 5, Why: "Manifests as written."},
		{Name: BucketSchedules, History: 5, Why: "Schedules that a 0.43.45 agent can read."},
		{Name: BucketSchedulesYAML, History: 5, Why: "Schedules as written."},
		{Name: BucketFleetConfig, History: 1, Why: "The freeze."},
		{Name: BucketAgentsState, History: 1, Why: "Unused, but a 0.43.45 CLI looks for it."},
		{Name: BucketCatalog, History: 5, Why: "Whole documents for our agents."},
		{Name: BucketExecStopped, History: 1, AllowTTL: true, Why: "How an exec ended, until its expiry; read from the leader only."},
	}
	for i := range buckets {
		b := &buckets[i]
		b.Replicas, b.MaxConsumers = l.Replicas, watchesPerAgent*l.Fleet
		b.Direct = b.Name != BucketExecStopped
	}
	return buckets
}

// ObjectStore declares one object store.
type ObjectStore struct {
	Name     string
	MaxAge   time.Duration
	MaxBytes int64
	Replicas int
	Why      string
}

// ObjectStores declares every object store.
func ObjectStores(l Limits) []ObjectStore {
	stores := []ObjectStore{
		{Name: StoreScripts, Why: "Script objects, <name>/<version>."},
		{Name: StoreResultOutput, MaxAge: 30 * day, MaxBytes: l.ResultOutputBytes, Why: "Output that is too long for an event. Full, it refuses, and the event goes out with head and tail alone."},
		{Name: StoreAgentReleases, Why: "Agent releases, <version>."},
		{Name: StoreAppPackages, Why: "Packages, <name>/<version>."},
		{Name: StoreSchedulerState, Why: "The scheduler's fold and its position; makes a start faster."},
		{
			Name: StoreReadModel, MaxAge: l.History + Slack, MaxBytes: l.SnapshotBytes,
			Why: "Snapshots of the read model, for as long as the past can be looked at; they make that and a start faster. Full, it refuses, and the oldest is taken out.",
		},
	}
	for i := range stores {
		stores[i].Replicas = l.Replicas
	}
	return stores
}
