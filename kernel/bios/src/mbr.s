# The boot sector: loads the second stage, whose place the converter has written into the packet.
.section .mbr, "awx"
.code16
.globl mbr_start
mbr_start:
    cli
    xorw %ax, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movw $0x7c00, %sp
    sti
    cld
    ljmp $0, $mbr_flat              # some firmware enters at 07c0:0000
mbr_flat:
    movb %dl, mbr_drive
    movb $0x41, %ah                 # are packet calls supported?
    movw $0x55aa, %bx
    int $0x13
    jc mbr_failed
    cmpw $0xaa55, %bx
    jne mbr_failed
    movb $0x42, %ah
    movb mbr_drive, %dl
    movw $mbr_packet, %si
    int $0x13
    jc mbr_failed
    cmpl $0x50553244, 0x8008        # "D2UP": it is what it should be
    jne mbr_failed
    movb mbr_drive, %dl
    ljmp $0, $0x8000

mbr_failed:
    movw $mbr_text, %si
mbr_next:
    lodsb
    testb %al, %al
    jz mbr_stop
    movb $0x0e, %ah
    movw $7, %bx
    int $0x10
    jmp mbr_next
mbr_stop:
    hlt
    jmp mbr_stop

mbr_text: .asciz "dock2uni: the disk cannot be read\r\n"
mbr_drive: .byte 0

    .org 424
mbr_packet:                         # disk address packet, int 13h function 42h
    .byte 16, 0
    .word 0                         # sectors: written by the converter
    .word 0x8000, 0                 # to 0000:8000
    .quad 0                         # first sector: written by the converter
