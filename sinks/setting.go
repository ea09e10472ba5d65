package sinks

import "errors"

// SettingError says which setting of a sink or mapping cannot be, so that whoever
// read it from a file can name the line.
type SettingError struct {
	// Key is the setting's, as the file has it: "update.score", "columns[1]".
	Key string
	Err error
}

// Error gives key and reason.
func (e *SettingError) Error() string { return e.Key + ": " + e.Err.Error() }

// Unwrap gives the reason.
func (e *SettingError) Unwrap() error { return e.Err }

// EachSetting takes apart what errors.Join put together: fn gets each key, "" for
// what names none, with its reason.
func EachSetting(err error, fn func(key string, reason error)) {
	if all, ok := err.(interface{ Unwrap() []error }); ok {
		for _, one := range all.Unwrap() {
			EachSetting(one, fn)
		}
		return
	}
	var setting *SettingError
	switch {
	case errors.As(err, &setting):
		fn(setting.Key, setting.Err)
	case err != nil:
		fn("", err)
	}
}
