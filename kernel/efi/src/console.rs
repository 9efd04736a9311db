//! Text for whoever watches.

use r_efi::efi::SystemTable;

/// Writes a line to the firmware's console.
pub fn say(system: &SystemTable, text: &str) {
    let out = system.con_out;
    if out.is_null() {
        return;
    }
    for part in ["dock2uni: ", text, "\r\n"] {
        let mut units = [0u16; 128];
        // One unit stays zero and ends the string.
        for (unit, byte) in units[..127].iter_mut().zip(part.bytes()) {
            *unit = byte.into();
        }
        // SAFETY: the firmware's own protocol; the string ends with a zero.
        unsafe { ((*out).output_string)(out, units.as_mut_ptr()) };
    }
}
