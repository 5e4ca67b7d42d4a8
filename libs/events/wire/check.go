package wire

// CheckHint says that a job is a health check: its stdout is an object with a status (ok, warn, fail, unknown); an exit
// code other than 0 is unknown. Part of Command; strict: 0.43.45 refuses a command with another key in here.
type CheckHint struct {
	Name string `json:"name"`
	// StatusField names the object's field; "status" when absent.
	StatusField string `json:"status_field" wire:"default"`
	// DetailField names the object's field; "detail" when absent.
	DetailField string `json:"detail_field" wire:"default"`
	// Troubleshoot is the id of a job that helps.
	Troubleshoot string `json:"troubleshoot,omitzero"`
	// Fleet is true when absent; false keeps the check on the endpoint.
	Fleet bool `json:"fleet" wire:"default"`
}

// UnmarshalJSON reads and checks.
func (c *CheckHint) UnmarshalJSON(data []byte) (err error) {
	*c, err = decode[CheckHint]("check", data)
	return err
}

func (CheckHint) strictKeys() {}

func (c *CheckHint) setDefaults() { c.StatusField, c.DetailField, c.Fleet = "status", "detail", true }
