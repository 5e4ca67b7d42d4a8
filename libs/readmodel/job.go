package readmodel

import (
	"context"

	"kanade/libs/events"
)

// Job is the current manifest of a job.
type Job struct {
	ID, Version string
	Revision
	// Live counts the executions of this job that have not ended.
	Live Live
}

// Live counts executions of a job by status.
type Live struct{ Running, Pending int }

var jobs = relation{name: "jobs", key: 1, rowid: true, columns: withRevision("id TEXT", "version TEXT")}

func (j *Job) fields() []any {
	return j.Revision.fields(&j.ID, &j.Version)
}

type jobProjection struct{ *rows[Job, *Job] }

func beginJobs(db *database) projection { return jobProjection{newRows[Job](db, &jobs)} }

func (p jobProjection) Apply(f *fact) error {
	switch e := f.payload.(type) {
	case events.JobSaved:
		row, err := p.get(e.ID)
		if err != nil {
			return err
		}
		row.row = Job{ID: e.ID, Version: e.Version, Revision: revisionOf(e.DocumentRevision, f)}
		p.put(row)
	case events.JobDeleted:
		row, err := p.get(e.ID)
		if err != nil {
			return err
		}
		p.remove(row)
	}
	return nil
}

func (p jobProjection) Flush() error { return p.flush() }

// selectJobs counts a job's open executions: those of which some target has said something, and those of which none has.
func selectJobs() string {
	count := func(heard string) string {
		return "(SELECT COUNT(*) FROM executions e LEFT JOIN target_totals t ON t.exec_id = e.exec_id" +
			" WHERE e.job_id = j.id AND e.closed_at = 0 AND e.expired_at = 0 AND COALESCE(t.heard, 0) " + heard + ")"
	}
	return "SELECT " + jobs.list("j") + ", " + count("> 0") + ", " + count("= 0") + " FROM jobs j"
}

func scanJob(scan func(...any) error) (j Job, err error) {
	return j, scan(append(j.fields(), &j.Live.Running, &j.Live.Pending)...)
}

const jobOrder order = "jobs"

// Jobs lists jobs by id, and gives the cursor of the next page; ErrCursor.
func (r *Reader) Jobs(ctx context.Context, p Page) ([]Job, string, error) {
	var id string
	if err := p.begin(jobOrder, &id); err != nil {
		return nil, "", err
	}
	rows, err := list(ctx, r, scanJob, selectJobs()+" WHERE j.id > ? ORDER BY j.id LIMIT ?", id, p.more())
	rows, next := cut(rows, p, func(j *Job) string { return jobOrder.cursor(j.ID) })
	return rows, next, err
}

// CountJobs counts all jobs.
func (r *Reader) CountJobs(ctx context.Context) (int, error) {
	return one(ctx, r, scanCount, "SELECT COUNT(*) FROM jobs")
}

func scanCount(scan func(...any) error) (n int, err error) { return n, scan(&n) }

// Job reads one job; ErrNotFound.
func (r *Reader) Job(ctx context.Context, id string) (Job, error) {
	return one(ctx, r, scanJob, selectJobs()+" WHERE j.id = ?", id)
}
