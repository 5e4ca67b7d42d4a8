package events

// InstallationID is the one id of the aggregate "config" that holds what is true of the whole installation.
const InstallationID = "installation"

// InstallationSaved holds what is true of the whole installation.
type InstallationSaved struct {
	ID string `json:"id"`
	// Zone is the IANA zone that "local" means: the host's at the first start ever, afterwards what an operator sets.
	Zone string `json:"zone"`
}

func (InstallationSaved) EventType() string     { return "kanade.config.saved.v1" }
func (p InstallationSaved) AggregateID() string { return p.ID }

// ReadModelID is the one id of the aggregate "config" for the copies of the read model.
const ReadModelID = "read-model"

// ReadModelCheckRequested asks every projector to replay the log into a file beside its own and to compare the two.
type ReadModelCheckRequested struct {
	ID string `json:"id"`
	// Rebuild puts the new file in place of the old one.
	Rebuild bool   `json:"rebuild,omitempty"`
	Reason  string `json:"reason,omitempty"`
}

func (ReadModelCheckRequested) EventType() string     { return "kanade.config.check-requested.v1" }
func (p ReadModelCheckRequested) AggregateID() string { return p.ID }

// ReadModelChecked is what one projector found; it names the request as its cause.
type ReadModelChecked struct {
	ID string `json:"id"`
	// Host and Slot say which copy this is, Schema the version of its form (the hash in its file's name).
	Host   string `json:"host"`
	Slot   string `json:"slot"`
	Schema string `json:"schema"`
	// Sequence is how much of the log was compared, Digests are those that the log gives, by table: two copies of one schema
	// and sequence have the same.
	Sequence uint64            `json:"sequence,omitempty"`
	Digests  map[string]string `json:"digests,omitempty"`
	// Differing counts the rows that were not as the log says, by table; empty where all were right. Differences names the
	// first hundred.
	Differing   map[string]int `json:"differing,omitempty"`
	Differences []string       `json:"differences,omitempty"`
	// Rebuilt: the new file is served.
	Rebuilt bool `json:"rebuilt,omitempty"`
	// Error is why nothing was found out; empty otherwise.
	Error string `json:"error,omitempty"`
}

func (ReadModelChecked) EventType() string     { return "kanade.config.checked.v1" }
func (p ReadModelChecked) AggregateID() string { return p.ID }

// ReadModelPastRequested asks the projectors to build a read model of a past moment, for whoever wants to look at it. One of
// each directory does, if the fact is recent when it passes it.
type ReadModelPastRequested struct {
	ID string `json:"id"`
	// Sequence is the moment: the model holds what the log held up to that message.
	Sequence uint64 `json:"sequence"`
}

func (ReadModelPastRequested) EventType() string     { return "kanade.config.past-requested.v1" }
func (p ReadModelPastRequested) AggregateID() string { return p.ID }

var (
	samplePastRequested  = ReadModelPastRequested{ID: ReadModelID, Sequence: 4711}
	sampleCheckRequested = ReadModelCheckRequested{ID: ReadModelID, Rebuild: true, Reason: "after the disk was full"}
	sampleChecked        = ReadModelChecked{
		ID: ReadModelID, Host: "server-1", Slot: "slot-0", Schema: "2c26b46b68ff", Sequence: 4711, Digests: map[string]string{"jobs": sampleDocument.Hash},
		Differing: map[string]int{"jobs": 1}, Differences: []string{"jobs [hello] is missing"}, Rebuilt: true, Error: "the disk is full",
	}
)

var sampleInstallationSaved = InstallationSaved{ID: InstallationID, Zone: "Europe/Berlin"}
