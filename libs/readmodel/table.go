package readmodel

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"kanade/libs/events"
)

// table is one noun of the read model: its SQL tables, the one stream that feeds them, and how a fact changes them.
type table struct {
	noun   string
	stream string
	// revision is raised when Apply makes other rows of the same log while the schema stays: it belongs to the schema's
	// hash, so that a file made by the former rules is not continued by the present ones.
	revision  int
	relations []*relation
	// begin opens the table for one batch.
	begin func(*database) projection
	// forgets is what it forgets by the time of the log; none: its rows go by facts only.
	forgets []forgetting
}

// projection applies the facts of one batch to one noun. Apply changes rows in memory, Flush writes what changed.
type projection interface {
	Apply(*fact) error
	Flush() error
}

// prefetcher is a projection that wants to see the whole batch first. Messages at or before the checkpoint and poison may
// be among it.
type prefetcher interface {
	Prefetch([]decoded) error
}

// tables lists the read model.
func tables() []table {
	log := func(noun string, begin func(*database) projection, r ...*relation) table {
		return table{noun: noun, stream: events.StreamLog, revision: 1, relations: r, begin: begin}
	}
	forgetting := func(t table, forgets ...forgetting) table {
		t.forgets = forgets
		return t
	}
	revised := func(revision int, t table) table {
		t.revision = revision
		return t
	}
	return append([]table{
		log("job", beginJobs, &jobs),
		log("schedule", beginSchedules, &schedules),
		log("progress", beginProgress, &progress),
		log("calendar", beginCalendars, &calendars),
		forgetting(log("tick", beginTicks, &ticks), forgetTicks),
		log("script", beginScripts, &scripts),
		log("freeze", beginFreezes, &freezes),
		log("agent", beginAgents, &agents, &memberships),
		{noun: "presence", stream: events.StreamPresence, revision: 1, relations: []*relation{&presence}, begin: beginPresence},
		revised(2, log("wave", beginWaves, &waves)),
		forgetting(log("target", beginTargets, &targets, &targetTotals, &targetPlaces), forgetReducedTargets, forgetTargets),
		revised(2, forgetting(log("execution", beginExecutions, &executions), forgetExecutions)),
		forgetting(log("result", beginResults, &results, &resultCounts), forgetRunning, forgetResults),
		forgetting(log("audit", beginAudit, &audits), forgetAudit),
	}, nextTables()...)
}

// schema is the SQL that makes a read model.
func schema() string {
	sql := checkpoints.schema()
	for _, t := range tables() {
		for _, r := range t.relations {
			sql += r.schema()
		}
	}
	return sql + wordSchema
}

// SchemaID names the read model that this version makes and reads: twelve digits of lower-case hex, a hash over its schema,
// what the file's header says, and the revisions of its rules. It is in the name of every file.
func SchemaID() string {
	h := sha256.New()
	h.Write([]byte(schema()))
	h.Write([]byte("user_version: generation\n"))
	for _, t := range tables() {
		fmt.Fprintf(h, "%s %s %d\n", t.noun, t.stream, t.revision)
	}
	return hex.EncodeToString(h.Sum(nil))[:12]
}
