//! The dependency descriptor, a header extension of the AV1 RTP specification which other
//! codecs use as well: the mandatory part, and whether a template structure is attached.
//!
//! Invariants: three bytes are enough for a descriptor without extended fields.
//!
//! Not here: templates, chains and decode targets. Frame numbers are carried as they are,
//! because the differences inside the templates refer to them.

/// The mandatory fields of a dependency descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DependencyDescriptor {
    pub starts_frame: bool,
    pub ends_frame: bool,
    pub template_id: u8,
    pub frame_number: u16,
    /// A template structure is attached: this is a key frame's first packet, and without it
    /// no later descriptor of the stream can be understood. Such a descriptor usually exceeds
    /// the 16 bytes of a one-byte-form header extension.
    pub has_structure: bool,
}

impl DependencyDescriptor {
    /// Parses the extension's bytes (AV1 RTP specification, A.8.2).
    pub fn parse(extension: &[u8]) -> Option<Self> {
        let (&[flags, high, low], extended) = extension.split_first_chunk::<3>()?;
        Some(Self {
            starts_frame: flags & 0x80 != 0,
            ends_frame: flags & 0x40 != 0,
            template_id: flags & 0x3f,
            frame_number: u16::from_be_bytes([high, low]),
            // extended_descriptor_fields(): the first bit is
            // template_dependency_structure_present_flag.
            has_structure: extended.first().is_some_and(|byte| byte & 0x80 != 0),
        })
    }

    /// A key frame starts with this packet, whatever the codec and even if the payload is
    /// encrypted.
    pub fn starts_keyframe(&self) -> bool {
        self.starts_frame && self.has_structure
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_mandatory_descriptor_is_no_key_frame() {
        let descriptor = DependencyDescriptor::parse(&[0xc3, 0x01, 0x02]).unwrap();
        assert!(descriptor.starts_frame && descriptor.ends_frame);
        assert_eq!((descriptor.template_id, descriptor.frame_number), (3, 0x0102));
        assert!(!descriptor.starts_keyframe());
    }

    #[test]
    fn an_attached_structure_is_a_key_frame() {
        // As Chromium sends it for L1T3: start of frame, template 0, frame 1, structure.
        let bytes = [0x80, 0x00, 0x01, 0x80, 0x02, 0x14, 0xea, 0xa8, 0x60, 0x41, 0x4d, 0x14];
        assert!(DependencyDescriptor::parse(&bytes).unwrap().starts_keyframe());
    }

    #[test]
    fn active_targets_without_a_structure_are_no_key_frame() {
        let descriptor = DependencyDescriptor::parse(&[0x80, 0, 9, 0x40, 0xc0]).unwrap();
        assert!(!descriptor.starts_keyframe());
    }

    #[test]
    fn a_short_extension_is_refused() {
        assert_eq!(DependencyDescriptor::parse(&[0x80, 0]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = DependencyDescriptor::parse(&bytes);
        }
    }
}
