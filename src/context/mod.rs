//! TAKEN (note from the lead, 10:43): src/context/ is now written by another helper on branch `context`
//! (/work/wt/context). Do not write this folder; when tree/ and snapshot/ are complete you are finished: report then.
