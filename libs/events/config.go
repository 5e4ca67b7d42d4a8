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

var sampleInstallationSaved = InstallationSaved{ID: InstallationID, Zone: "Europe/Berlin"}
